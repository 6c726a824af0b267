"""Compares what was produced with what came out: nothing lost, nothing out of order per key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from demo.producer import Change


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of records. ``handled`` and ``dead_lettered`` count each record once; ``again`` what came twice."""

    produced: int
    handled: int
    dead_lettered: int
    again: int
    lost: int
    out_of_order: int

    @property
    def line(self) -> str:
        return (
            f"demo: produced={self.produced} handled={self.handled} dead_lettered={self.dead_lettered} "
            f"lost={self.lost} out_of_order={self.out_of_order}"
        )


def judge(
    expected: Mapping[str, Sequence[Change]],
    handled: Iterable[tuple[str, Change]],
    dead: Iterable[tuple[str, Change]],
) -> Verdict:
    """``handled`` in the order of handling; a record counts as out of order when a later one of its key came first."""
    position = {(key, change): at for key, changes in expected.items() for at, change in enumerate(changes)}
    newest: dict[str, int] = {}
    seen: set[tuple[str, Change]] = set()
    again = out_of_order = 0
    for key, change in handled:
        if (key, change) in seen:
            again += 1
            continue
        seen.add((key, change))
        at = position.get((key, change), -1)
        out_of_order += at < newest.get(key, -1)
        newest[key] = max(at, newest.get(key, -1))
    buried = set(dead) - seen
    lost = sum(1 for entry in position if entry not in seen and entry not in buried)
    return Verdict(len(position), len(seen & position.keys()), len(buried), again, lost, out_of_order)
