"""Fair share: which leases this worker should take and which it should hand over. Pure, and the same on every worker.

Every worker sees the same rows and computes the same moves, and carries out only its own. Nothing is taken from the
living: a worker above its share hands over. A difference of one is left alone (no ping-pong), finished shards and
children that may not start yet do not count, and a shard moves at most once per plan.

The cost is that of the rows and of the moves, times a logarithm of the workers.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

from .lease import LeaseRow, SessionRow
from .shards import may_start, startable


@dataclass(frozen=True, slots=True)
class Plan:
    """``take``: free leases to take now. ``hand_over``: own shard -> incarnation of its next owner."""

    take: tuple[LeaseRow, ...] = ()
    hand_over: tuple[tuple[str, str], ...] = ()


def plan(
    me: str,
    live: Sequence[SessionRow],
    dead: Collection[str],
    rows: Mapping[str, LeaseRow],
    overdue: Collection[str] = (),
) -> Plan:
    """``live`` sessions include this worker; ``dead`` incarnations are fenced for good. Leaving workers get nothing.

    ``overdue`` leases have been free for so long that the worker they fall to must be slow, or dead and not yet
    noticed: any worker with room takes them (the conditional write lets one of them win).
    """
    workers = {s.incarnation: s.capacity or len(rows) + 1 for s in live if not s.leaving}
    if me not in workers:
        return Plan()
    active = [row for row in rows.values() if not row.finished and may_start(row, rows)]
    held = Counter(row.owner for row in active)
    counts = {worker: held[worker] for worker in workers}
    free = startable(rows, dead)
    if not free:
        return Plan((), tuple(_moves_away(me, workers, counts, active)))
    take = _share_of_free(me, workers, counts, free)
    room = workers[me] - counts[me] - len(take)
    mine = {row.shard_id for row in take}
    late = [row for row in free if row.shard_id in overdue and row.shard_id not in mine]
    return Plan((*take, *late[: max(0, room)]))


def _share_of_free(
    me: str, workers: Mapping[str, int], counts: Mapping[str, int], free: Sequence[LeaseRow]
) -> list[LeaseRow]:
    """Deal the free leases one by one to the worker with the fewest; keep what falls to this worker."""
    levels = _Levels(workers, counts)
    mine = []
    for row in sorted(free, key=lambda row: row.shard_id):
        chosen = levels.next_for(row.shard_id)
        if chosen is None:
            break
        if chosen == me:
            mine.append(row)
    return mine


class _Levels:
    """The workers that have room, by how many leases they hold, those of each level as a ring.

    Among the workers with the fewest the one that follows the shard's place on the ring is chosen, so that
    simultaneous starters do not all want the same lease, and a worker that one of them does not see yet changes the
    choice for few shards only."""

    def __init__(self, workers: Mapping[str, int], counts: Mapping[str, int]) -> None:
        self._capacity = workers
        self._rings: dict[int, list[tuple[bytes, str]]] = {}
        for place in sorted((_place(worker), worker) for worker, most in workers.items() if counts[worker] < most):
            self._rings.setdefault(counts[place[1]], []).append(place)
        self._levels = sorted(self._rings)  # a heap

    def next_for(self, shard_id: str) -> str | None:
        """The worker that the shard falls to, which holds one more from now on; None when none has room."""
        while self._levels and not self._rings[self._levels[0]]:
            heappop(self._levels)
        if not self._levels:
            return None
        fewest = self._levels[0]
        ring = self._rings[fewest]
        _, worker = place = ring.pop(bisect_left(ring, (_place(shard_id), "")) % len(ring))
        if fewest + 1 < self._capacity[worker]:
            if fewest + 1 not in self._rings:
                self._rings[fewest + 1] = []
                heappush(self._levels, fewest + 1)
            insort(self._rings[fewest + 1], place)
        return worker


def _moves_away(
    me: str, workers: Mapping[str, int], counts: Mapping[str, int], active: Iterable[LeaseRow]
) -> Iterator[tuple[str, str]]:
    """The moves of this worker: again and again the one with the most gives to the one with the fewest."""
    # No worker drains a halted or quarantined shard, so it cannot move; every worker must count that for every giver.
    movable = [row for row in active if row.state != "halted" and not row.corrupt]
    left = Counter(row.owner for row in movable)
    own = deque(sorted(row.shard_id for row in movable if row.owner == me))
    names = sorted(workers)
    # Two heaps: who takes ends one above the fewest, so no taker becomes a giver, nor a giver a taker.
    givers = [(-counts[worker], -rank) for rank, worker in enumerate(names) if left[worker]]
    takers = [(counts[worker], rank) for rank, worker in enumerate(names) if counts[worker] < workers[worker]]
    heapify(givers)
    heapify(takers)
    while givers and takers:
        (most, minus_rank), (fewest, rank) = givers[0], takers[0]
        giver, taker = names[-minus_rank], names[rank]
        if -most - fewest < 2:
            return
        left[giver] -= 1
        _replace_first(givers, (most + 1, minus_rank) if left[giver] else None)
        _replace_first(takers, (fewest + 1, rank) if fewest + 1 < workers[taker] else None)
        if giver == me:
            yield own.popleft(), taker


def _replace_first(heap: list[tuple[int, int]], entry: tuple[int, int] | None) -> None:
    if entry is None:
        heappop(heap)
    else:
        heapreplace(heap, entry)


def distance(worker: str, shard_id: str) -> int:
    """How far the shard is from the worker on the ring: different for every worker."""
    return int.from_bytes(bytes(a ^ b for a, b in zip(_place(worker), _place(shard_id), strict=True)))


def _place(name: str) -> bytes:
    """Where a worker or a shard is on the ring."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()
