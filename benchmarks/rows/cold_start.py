"""One worker meets thousands of shards that have no lease rows yet."""

from __future__ import annotations

import asyncio
import time

from benchmarks.daemon import run_daemon, settings_of
from benchmarks.measure import Meter
from benchmarks.rows.latency import Pulse
from benchmarks.servers import steer


def cold_start(stream: str, table: str, shards: int) -> dict[str, float]:
    """From the start on an empty table until a record of every shard is handled, and the stalls of the loop."""
    steer(stream, "Configure", shards=shards, records=1)

    async def run() -> dict[str, float]:
        pulse, stop, started = Pulse(), asyncio.Event(), time.monotonic()
        meter = Meter(shards, on_end=stop.set)
        settings = settings_of(stream, table, {"target": "benchmarks.handlers:nothing"}, shutdown={"grace": "120s"})
        daemon = asyncio.create_task(run_daemon(settings, meter.count, stop))
        beating = asyncio.create_task(pulse.run())
        cpu = time.process_time()
        await stop.wait()
        beating.cancel()
        found = {"shards": shards, "total_s": time.monotonic() - started, "cpu_s": time.process_time() - cpu}
        stopping = time.monotonic()
        await daemon
        return {**found, "stop_s": time.monotonic() - stopping, **pulse.result()}

    return asyncio.run(run())
