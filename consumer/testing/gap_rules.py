"""The rules about gaps in a source that never says that records were trimmed: every loss leaves its trace, and no trace
comes without one (part of G7)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from consumer.domain.completeness import as_if_kept, lost_nothing
from consumer.domain.kinesis_numbers import book_number
from consumer.domain.lease import LeaseRow
from consumer.ports.leases import Loss
from consumer.testing.history import History, Item


@dataclass(frozen=True, slots=True)
class _Gap:
    """A row: everything behind the record with the number ``after`` up to what is read next."""

    at: float  # virtual time
    after: float
    keys: str  # names deferred keys by their digests; empty when it is about all records

    def is_about(self, item: Item) -> bool:
        return item.number > self.after and (not self.keys or item.digest in self.keys)


class GapRules:
    """What was lost of each shard since its last gap row."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._untold: dict[str, list[Item]] = defaultdict(list)
        self._excused: set[str] = set()
        self._gaps: dict[str, list[_Gap]] = defaultdict(list)  # by shard

    def lost(self, shard_id: str, items: Iterable[Item], *, known: bool) -> None:
        """Records were trimmed before they were settled. When it is not ``known`` that there were any, they need no
        trace, and may have one. Those need none either that come right behind a gap that was told: until its reader has
        read what is left, the horizon may move on, and the row says where reading goes on no sooner than that."""
        if known:
            gaps = self._gaps[shard_id]
            self._untold[shard_id].extend(one for one in items if not any(self._tells_of(gap, one) for gap in gaps))
        else:
            self._excused.add(shard_id)

    def row_deleted(self, shard_id: str) -> bool:
        """By hand: where reading had come to may be forgotten with it. Whether that may hide a loss."""
        if self._untold.pop(shard_id, []):
            self._excused.add(shard_id)
        return shard_id in self._excused

    def recorded(self, loss: Loss, row: LeaseRow | None, now: float, retention: float) -> None:
        """There is a row for a loss; the lease row of the shard is as its owner has written it last. ``now`` in Unix
        seconds, ``retention`` in seconds."""
        self._history.note("loss", loss.kind, loss.shard_id, loss.reason)
        if loss.kind != "gap":
            return
        keys = loss.reason if "keys were deferred" in loss.reason else ""
        number, _, place = (loss.first_sequence_number or "").partition(":")
        after = int(book_number(number, int(place or 0))) if number else -math.inf
        self._gaps[loss.shard_id].append(_Gap(self._history.now(), after, keys))
        untold = self._untold.pop(loss.shard_id, [])
        if untold or loss.shard_id in self._excused or row is None:
            return
        found = self._needless(loss, row, now, retention) if not keys else self._about_nothing(loss)
        if found:
            self._history.violated("G7 no silent loss", f"{loss.shard_id} has a gap row ({loss.reason}), and {found}")

    def at_the_end(self) -> None:
        """Every worker has stopped."""
        for shard_id, items in self._untold.items():
            left = [item for item in items if item.settled_at is None]
            if left:
                found = f"{left[0].key} v{left[0].version} of {shard_id} was trimmed, and no gap row came after that"
                self._history.violated("G7 no silent loss", found)

    @staticmethod
    def _needless(loss: Loss, row: LeaseRow, now: float, retention: float) -> str:
        frontier = row.frontier
        complete_at = as_if_kept(frontier.complete_at, frontier.kept_for, retention)
        if not lost_nothing(complete_at, now, retention):
            return ""
        return f"was complete {now - frontier.complete_at:.0f} s ago by its checkpoint"

    def _about_nothing(self, loss: Loss) -> str:
        """That the shard was complete says nothing of its deferred keys, and whether records of them are among what is
        gone nobody can know. But some record of them must be there that is not handled."""
        left = any(item.digest in loss.reason and item.settled_at is None for item in self._items_of(loss.shard_id))
        return "" if left else "nothing of these keys was left in it"

    def _tells_of(self, gap: _Gap, lost: Item) -> bool:
        """Whether a record that was trimmed after the row is among what it speaks of: nothing before it was read since
        then. What was read and is not settled is not trimmed, as far as this row is concerned: it is handled."""
        if not gap.is_about(lost):
            return False
        return not any(
            item.settled_at is not None and item.settled_at > gap.at and item.number < lost.number
            for item in self._items_of(lost.shard_id)
            if gap.is_about(item)
        )

    def _items_of(self, shard_id: str) -> Iterator[Item]:
        return (item for item in self._history.items.values() if item.shard_id == shard_id)
