"""What every batch counts, as plain numbers that become samples only at a scrape.

A counter of the library takes a lock for each increment; the five that a batch needs were a twelfth of what a handler
call costs. These have one writer, the main loop; the scrape on the control thread only reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX: Final = "stream_consumer"


class PlainCounter:
    """One number."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        self.value -= amount


class PlainNumber(PlainCounter, Collector):
    """A metric without labels, of the type that ``family`` says."""

    __slots__ = ("_family", "_name", "_text")

    def __init__(self, family: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str) -> None:
        super().__init__()
        self._family = family
        self._name = name
        self._text = text

    def collect(self) -> Iterator[Metric]:
        yield self._family(self._name, self._text, self.value)


class PlainCounters(Collector):
    """Counters with one label: ``counters("ok").inc()``. The ``known`` label values are there from the start."""

    def __init__(self, name: str, text: str, label: str, known: Iterable[str]) -> None:
        self._name = name
        self._text = text
        self._label = label
        self._children = {value: PlainCounter() for value in known}

    def __call__(self, value: str) -> PlainCounter:
        return self._children[value]

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=(self._label,))
        for value, child in self._children.items():
            family.add_metric((value,), child.value)
        yield family


class Durations(Collector):
    """A histogram of seconds without labels; ``buckets`` are their upper bounds, growing."""

    def __init__(self, name: str, text: str, buckets: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        names = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        buckets = list(zip(names, accumulate(self._counts.copy()), strict=True))
        family = HistogramMetricFamily(self._name, self._text)
        family.add_metric((), buckets, self._sum)
        yield family
