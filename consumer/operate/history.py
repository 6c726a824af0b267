"""The last quarter of an hour of one worker, for the small charts of the status page. Pure: the caller has the clock.

Everything is kept in one place of fixed size: 90 points, and what was counted at each of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

STEP: Final = 10.0  # seconds from point to point
POINTS: Final = 90
RATES: Final = ("handled", "dead_letters", "throttles")


@dataclass(frozen=True, slots=True)
class Past:
    """Points ``step`` seconds apart, oldest first; None where nothing was measured. ``lag`` in seconds, the worst of
    each step; the others a second. ``calls_per_hour`` of AWS, by operation, as they were on average."""

    step: float = STEP
    lag: tuple[float | None, ...] = ()
    handled: tuple[float | None, ...] = ()
    dead_letters: tuple[float | None, ...] = ()
    throttles: tuple[float | None, ...] = ()
    calls_per_hour: Mapping[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How much time ``calls_per_hour`` is the average of."""
        return len(self.lag) * self.step


class History:
    """``observe`` it often; it makes a point now and then. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._points: dict[str, deque[float | None]] = {name: deque(maxlen=POINTS) for name in ("lag", *RATES)}
        self._calls: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=POINTS + 1)
        self._counted: Mapping[str, float] = {}
        self._began: float | None = None
        self._worst = 0.0
        self.past = Past()

    def observe(self, now: float, lag: float) -> bool:
        """Note the lag (seconds). True when a point is due: then call ``add``."""
        self._worst = max(self._worst, lag)
        return self._began is None or now - self._began >= STEP

    def add(self, now: float, counted: Mapping[str, float], calls: Mapping[str, float]) -> None:
        """Make a point of what was ``counted`` (by RATES) and which ``calls`` were sent, both since the process began.
        What was missed because the main loop did not run stays empty."""
        if self._began is not None:
            seconds = now - self._began
            for _ in range(min(POINTS, round(seconds / STEP) - 1)):
                self._append(dict.fromkeys(self._points))
            rates = {name: max(0.0, counted[name] - self._counted[name]) / seconds for name in RATES}
            self._append({"lag": round(self._worst, 1)} | {name: round(rate, 2) for name, rate in rates.items()})
        self._began, self._counted, self._worst = now, dict(counted), 0.0
        self._calls.append((now, dict(calls)))
        lag, handled, dead_letters, throttles = map(tuple, self._points.values())
        self.past = Past(STEP, lag, handled, dead_letters, throttles, self._calls_per_hour())

    def _append(self, point: Mapping[str, float | None]) -> None:
        for name, points in self._points.items():
            points.append(point[name])

    def _calls_per_hour(self) -> dict[str, float]:
        (began, first), (now, last) = self._calls[0], self._calls[-1]
        if now <= began:
            return {}
        sent = {name: count - first.get(name, 0.0) for name, count in last.items()}
        return {name: round(count * 3600 / (now - began), 1) for name, count in sorted(sent.items()) if count > 0}


class Rates:
    """How fast counters grow, one by one. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}
        self._rates: dict[str, float] = {}

    def observe(self, now: float, name: str, count: int) -> float | None:
        """The rate (a second) of the counter over its last step; None before there was one."""
        since, before = self._seen.setdefault(name, (now, count))
        if count < before:  # it began anew: the lease came back
            self.forget(name)
            self._seen[name] = (now, count)
        elif now - since >= STEP:
            self._rates[name] = round((count - before) / (now - since), 1)
            self._seen[name] = (now, count)
        return self._rates.get(name)

    def keep(self, names: Mapping[str, object]) -> None:
        """Forget the others."""
        for name in self._seen.keys() - names.keys():
            self.forget(name)

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)
        self._rates.pop(name, None)
