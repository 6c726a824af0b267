"""Which ordering key has the largest share of a shard's records: a Misra-Gries summary, which forgets.

One key is handled one batch at a time, so a key with most of the records is a limit that neither more workers nor a
larger ``parallelization_factor`` lift. The summary holds few keys, whatever passes: of every key with more than
1 / (COUNTERS + 1) of the records one is left. What it counts is never too much, and at most that share too little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

COUNTERS: Final = 32  # keys that outlast a cut: a share is at most 1/33 too small
HALF_LIFE: Final = 60.0  # seconds after which a record counts half
FEWEST: Final = 100  # records (halved ones count half) below which a share says nothing: of one record it is all


class HeavyHitters:
    """The keys of one shard's records, of the last minutes. ``now`` is in seconds of a clock that never goes back.

    Counting is cheaper than its rigour suggests: keys are counted as a page brings them, and only a table that has
    grown is cut back to COUNTERS keys. Cutting takes the same number from more than COUNTERS keys, so that all cuts
    together take at most 1 / (COUNTERS + 1) of the records from one key, however seldom they come.
    """

    __slots__ = ("_aged_at", "_held", "_total")

    def __init__(self) -> None:
        self._held: Counter[bytes] = Counter()
        self._total = 0
        self._aged_at: float | None = None

    def add(self, keys: Iterable[bytes], count: int) -> None:
        """Count the keys of ``count`` records."""
        held = self._held
        held.update(keys)
        self._total += count
        if len(held) > 2 * COUNTERS:
            self._cut()

    def hottest(self, now: float) -> tuple[bytes, float] | None:
        """The key with the largest share and that share, 0 to 1, or up to 1/33 less; None when too few records came of
        late, or none of their keys stands out. Records count half after HALF_LIFE."""
        self._age(now)
        if self._total < FEWEST or not self._held:
            return None
        key, count = max(self._held.items(), key=lambda item: item[1])
        return key, count / self._total

    def _cut(self) -> None:
        least = sorted(self._held.values(), reverse=True)[COUNTERS]
        self._held = Counter({key: count - least for key, count in self._held.items() if count > least})

    def _age(self, now: float) -> None:
        if self._aged_at is None or not self._total:
            self._aged_at = now
            return
        halvings = int((now - self._aged_at) / HALF_LIFE)
        if halvings > 0:
            self._aged_at += halvings * HALF_LIFE
            self._total >>= halvings
            self._held = Counter({key: left for key, count in self._held.items() if (left := count >> halvings)})
