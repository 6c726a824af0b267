"""What comes again after SIGKILL, and how often frontiers are written meanwhile."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator

from benchmarks.process import daemon_process, frontier_writes, wait_for
from benchmarks.servers import steer

LEASE = 2.0  # seconds: the next worker waits a little longer for the one that was killed
MOST_PUTS = 10.0  # a second and shard: above that records come in handfuls
SETTLED_IN = 2.0  # seconds that a worker runs before it is measured
MEASURED = 3.0


def crash(
    stream: str, table: str, shards: int, rate: float, kills: int, interval: str = "1s", seed: int = 1
) -> dict[str, float]:
    """One daemon after the other is killed at a random moment while records come by chance, ``rate`` a second into each
    of the ``shards``. Counts the records that the next one handles again."""
    chance = random.Random(seed)
    steer(stream, "Configure", shards=shards, records=0)
    sections = {"leases": {"duration": f"{LEASE:g}s"}, "checkpoint": {"interval": interval}}
    fleet = f"bench-crash-{time.time_ns()}"
    handled: set[str] = set()
    repeated: list[int] = []
    writes = seconds = 0.0
    with _records(stream, shards, rate, chance):
        for number in range(kills + 1):
            with daemon_process(stream, table, "journal", application=fleet, **sections) as daemon:
                wait_for(lambda: daemon.metric('stream_consumer_leases{state="owned"}') >= shards, 60)
                time.sleep(SETTLED_IN)
                if number < kills:
                    before, began = frontier_writes(table, fleet), time.monotonic()
                    time.sleep(MEASURED + chance.random())
                    writes += frontier_writes(table, fleet) - before
                    seconds += time.monotonic() - began
                daemon.kill()
                lines = daemon.lines()
            if number:
                repeated.append(sum(line in handled for line in lines))
            handled.update(lines)
    return {
        "rate": rate,
        "kills": kills,
        "repeated_a_shard": sum(repeated) / kills / shards,
        "repeated_of_a_second": sum(repeated) / kills / shards / rate,
        "kills_without": sum(not count for count in repeated) / kills,
        "writes_a_shard_second": writes / shards / seconds,
    }


@contextlib.contextmanager
def _records(stream: str, shards: int, rate: float, chance: random.Random) -> Iterator[None]:
    """New records all the time, at random moments."""
    ended = threading.Event()
    puts = min(rate, MOST_PUTS)

    def put() -> None:
        due, owed = time.monotonic(), [0.0] * shards
        while not ended.is_set():
            due += chance.expovariate(puts * shards)
            ended.wait(max(0.0, due - time.monotonic()))
            shard = chance.randrange(shards)
            owed[shard] += rate / puts
            count = int(owed[shard])
            owed[shard] -= count
            steer(stream, "Put", shard=shard, count=count)

    thread = threading.Thread(target=put)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
