"""From a record being readable to its handler's start, and the stalls of the event loop meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import handlers, naive
from benchmarks.daemon import run_daemon, settings_of
from benchmarks.measure import Meter, percentile
from benchmarks.records import index_of
from benchmarks.servers import steer
from consumer.domain.record import Record
from consumer.settings.model import Settings

PULSE = 0.002  # seconds between looks at the loop
TRICKLE = 20.0  # records/s of a shard before the measurement
TAUGHT = 100  # records of each shard by which the daemon has seen that it is a busy one
SETTLING = 2.0  # seconds at the beginning that do not count


class Pulse:
    """Samples how much later than asked the loop comes back: what everything else on it has to wait.

    ``lag`` counts only what this thread computed meanwhile. ``wall`` also has the time in which the machine ran
    unrelated processes, which on a shared machine says nothing about the program.
    """

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.walls: list[float] = []

    async def run(self) -> None:
        while True:
            before, busy = time.monotonic(), time.thread_time()
            await asyncio.sleep(PULSE)
            wall = max(0.0, time.monotonic() - before - PULSE)
            self.walls.append(wall)
            self.lags.append(min(wall, time.thread_time() - busy))

    def result(self) -> dict[str, float]:
        # Weighted by time: a stall of 100 ms holds up whatever happens in these 100 ms, not one sample of 50.
        found = {}
        for name, lags in (("lag", self.lags), ("wall", self.walls)):
            slots = [lag for lag in lags for _ in range(1 + int(lag / PULSE))]
            found[f"{name}_p99_ms"] = 1e3 * percentile(slots, 0.99)
            found[f"{name}_max_ms"] = 1e3 * max(lags, default=0.0)
        return found


def at_share(stream: str, table: str, shards: int, share: float, seconds: float, flat_out: int) -> dict[str, float]:
    """Records become readable evenly for ``seconds``, at this share of what the daemon reads at most. That is measured
    right before, by the same process, with ``flat_out`` records: minutes later the machine may be twice as busy, and
    the same rate too much for it.

    Before that a trickle keeps the shards awake, until the daemon has read enough of each to poll it as often as it
    may: what piles up until an idle shard is polled again, or one that it knows nothing of yet, is another row's.
    """
    calls: list[tuple[float, int, int]] = []

    async def handle(records: Sequence[Record], context: Any) -> None:
        now = time.monotonic()
        calls.append((now, index_of(records[0].sequence_number), index_of(records[-1].sequence_number)))

    async def run() -> tuple[float, float, dict[str, float]]:
        vars(handlers)["measured"] = handle
        settings = settings_of(stream, table, {"target": "benchmarks.handlers:measured"})
        rate = share * await _most(stream, settings, shards, flat_out)
        taught = asyncio.Event()
        pulse, stop, handled = Pulse(), asyncio.Event(), Meter(TAUGHT * shards, on_end=taught.set)
        await asyncio.to_thread(steer, stream, "Configure", shards=shards, rate=TRICKLE)
        settings = settings_of(stream, table, {"target": "benchmarks.handlers:measured"})
        daemon = asyncio.create_task(run_daemon(settings, handled.count, stop))
        await taught.wait()
        stats = await asyncio.to_thread(steer, stream, "Configure", shards=shards, rate=rate / shards)
        await asyncio.sleep(SETTLING)
        calls.clear()
        beating = asyncio.create_task(pulse.run())
        await asyncio.sleep(seconds)
        beating.cancel()
        stop.set()
        await daemon
        return rate, stats["epoch"], pulse.result()

    rate, epoch, lags = asyncio.run(run())
    waits = [now - (epoch + (n + 1) * shards / rate) for now, *numbers in calls for n in numbers]
    return {
        "rate": rate,
        "calls": len(calls),
        "p50_ms": 1e3 * percentile(waits, 0.5),
        "p99_ms": 1e3 * percentile(waits, 0.99),
        **lags,
    }


async def _most(stream: str, settings: Settings, shards: int, records: int) -> float:
    """Records a second that the daemon reads when there are always more."""
    await asyncio.to_thread(steer, stream, "Configure", shards=shards)
    stop = asyncio.Event()
    meter = Meter(records, warm_up=records // 10, on_end=stop.set)
    await run_daemon(settings, meter.count, stop)
    return meter.result()["per_second"]


def daemon_flat_out(stream: str, table: str, records: int) -> dict[str, float]:
    """The loop's lag while the daemon reads as fast as it can."""

    async def run() -> dict[str, float]:
        pulse, stop = Pulse(), asyncio.Event()
        meter = Meter(records, on_end=stop.set)
        running = asyncio.create_task(
            run_daemon(settings_of(stream, table, {"target": "benchmarks.handlers:nothing"}), meter.count, stop)
        )
        while not meter.seen:  # noqa: ASYNC110 - an event would cost what is measured
            await asyncio.sleep(0.01)
        beating = asyncio.create_task(pulse.run())
        await stop.wait()
        beating.cancel()
        await running
        return pulse.result()

    return asyncio.run(run())


def naive_flat_out(stream: str, records: int, shards: int) -> dict[str, float]:
    """The same for the loop written by hand."""

    async def run() -> dict[str, float]:
        pulse = Pulse()
        beating = asyncio.create_task(pulse.run())
        await naive.consume(stream, shards, naive.nothing, Meter(records))
        await asyncio.sleep(PULSE)
        beating.cancel()
        return pulse.result()

    return asyncio.run(run())
