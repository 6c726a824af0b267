"""Fair share: which leases this worker should take and which it should hand over. Pure, and the same on every worker.

Every worker sees the same rows and computes the same moves, and carries out only its own. Nothing is taken from the
living: a worker above its share hands over. A difference of one is left alone (no ping-pong), finished shards and
children that may not start yet do not count, and a shard moves at most once per plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from consumer.domain.lease import LeaseRow, SessionRow, free_leases
from consumer.domain.shards import may_start


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
    counts = dict.fromkeys(workers, 0)
    for row in active:
        if row.owner in counts:
            counts[row.owner] += 1
    free = [row for row in free_leases({row.shard_id: row for row in active}, dead) if not row.corrupt]
    take = _share_of_free(me, workers, counts, free)
    room = workers[me] - counts[me] - len(take)
    late = [row for row in free if row.shard_id in overdue and row not in take]
    take += tuple(late[: max(0, room)])
    return Plan(take, _moves_away(me, workers, counts, active) if not free else ())


def _share_of_free(
    me: str, workers: Mapping[str, int], counts: Mapping[str, int], free: Sequence[LeaseRow]
) -> tuple[LeaseRow, ...]:
    """Deal the free leases one by one to the worker with the fewest; keep what falls to this worker."""
    held = dict(counts)
    mine = []
    for row in sorted(free, key=lambda row: row.shard_id):
        room = [worker for worker in held if held[worker] < workers[worker]]
        if not room:
            break
        chosen = min(room, key=lambda worker: (held[worker], _tie(worker, row.shard_id)))
        held[chosen] += 1
        if chosen == me:
            mine.append(row)
    return tuple(mine)


def _moves_away(
    me: str, workers: Mapping[str, int], counts: Mapping[str, int], active: Sequence[LeaseRow]
) -> tuple[tuple[str, str], ...]:
    held = dict(counts)
    # No worker drains a halted or quarantined shard, so it cannot move; every worker must count that for every giver.
    movable = [row for row in active if row.state != "halted" and not row.corrupt]
    left = {worker: sum(row.owner == worker for row in movable) for worker in held}
    own = sorted(row.shard_id for row in movable if row.owner == me)
    moves: list[tuple[str, str]] = []
    while True:
        givers = [worker for worker in held if left[worker]]
        room = [worker for worker in held if held[worker] < workers[worker]]
        if not givers or not room:
            return tuple(moves)
        giver = max(givers, key=lambda worker: (held[worker], worker))
        taker = min(room, key=lambda worker: (held[worker], worker))
        if held[giver] - held[taker] < 2:
            return tuple(moves)
        held[giver] -= 1
        held[taker] += 1
        left[giver] -= 1
        if giver == me:
            moves.append((own[len(moves)], taker))


def _tie(worker: str, shard_id: str) -> bytes:
    """Spread ties differently for every shard, so that simultaneous starters do not all want the same lease."""
    return hashlib.blake2b(f"{worker}\0{shard_id}".encode(), digest_size=8).digest()
