"""A breadth-first search over all states of the machine of deferred keys (``deferred_machine``).

``python -m tests.unit.worker.deferred_model`` searches the large cases; ``make test`` the small ones, and each mistake.
"""

from __future__ import annotations

import sys
import time
from collections import deque

from tests.support.state_search import way_to
from tests.unit.worker.deferred_machine import steps
from tests.unit.worker.deferred_world import Case, Shard, World, finished, same

CASES = (
    Case("two keys", (Shard("KLK"),), crashes=1),
    Case("a child", (Shard("KJK"), Shard("KJ", (0,))), "K", crashes=1),
    Case("a grandchild after an empty child", (Shard("KJ"), Shard("", (0,)), Shard("K", (1,))), "K", crashes=1),
    Case("a split", (Shard("KJ"), Shard("K", (0,)), Shard("J", (0,))), "K", crashes=1),
    Case("a hand-over", (Shard("KJK"),), "K", moves=2, calls=True),
    Case("a hand-over with a child", (Shard("KJ"), Shard("K", (0,))), "K", moves=2, calls=True),
    Case("trims", (Shard("KJK"),), "K", crashes=1, trims=3),
    Case("another stream", (Shard("K"), Shard("K", (0,)), Shard("KJ", before=(0, 1))), "K", crashes=1),
    Case("runs are forgotten", (Shard("JKJK"),), "K", crashes=1, forgets=True),
    Case("two keys and a child", (Shard("KL"), Shard("LK", (0,))), crashes=1),
)
LARGE = (
    Case("two keys", (Shard("KLJKL"),), crashes=1),
    Case("two crashes and a child", (Shard("KJKJK"), Shard("KJ", (0,))), "K", crashes=2),
    Case("two keys, a child, a grandchild", (Shard("KL"), Shard("", (0,)), Shard("LK", (1,))), crashes=1),
    Case("two keys, a healthy one and a child", (Shard("KJL"), Shard("LJK", (0,))), crashes=1),
    Case("a merge", (Shard("KJ"), Shard("L"), Shard("KL", (0, 1))), crashes=1),
    Case("hand-overs and a crash", (Shard("KJKJK"),), "K", crashes=1, moves=2, calls=True, forgets=True),
    Case("two keys and a hand-over", (Shard("KLJK"),), moves=1, calls=True),
    Case("hand-overs with a child", (Shard("KJK"), Shard("KJ", (0,))), "K", crashes=1, moves=2, calls=True),
    Case("trims and a child", (Shard("KJK"), Shard("JK", (0,))), "K", crashes=1, trims=5),
    Case("trims and two keys", (Shard("KLK"),), crashes=1, trims=3),
    Case("trims, and runs are forgotten", (Shard("JKJK"),), "K", crashes=2, trims=4, forgets=True),
    Case("another stream", (Shard("KJ"), Shard("KJ", (0,)), Shard("JK", before=(0, 1))), "K", crashes=2),
)


def search(case: Case, most: int = 3_000_000) -> tuple[int, str]:
    """All reachable states: how many there are, and the shortest way to a violation ("" if there is none)."""
    start = same(case, case.start)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        on = finished(world)
        for step in steps(case, world):
            following = same(case, step.world)
            on = on or (step.helps and following != world)
            if following in came_from:
                continue
            came_from[following] = (world, step.name)
            if following.bad:
                return len(came_from), f"{following.bad}: {' > '.join(way_to(following, came_from))}"
            waiting.append(following)
        if not on:
            return len(came_from), f"nothing helps any more: {' > '.join(way_to(world, came_from))}; {world}"
        if len(came_from) > most:
            raise AssertionError(f"{case.name}: more than {most} states, the model has lost its bounds")
    return len(came_from), ""


def main() -> int:
    for case in LARGE:
        began = time.perf_counter()
        states, way = search(case)
        seconds = time.perf_counter() - began
        print(f"{case.name}: {states} states in {seconds:.0f} s, {way or 'no violation'}", flush=True)
        if way:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
