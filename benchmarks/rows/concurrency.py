"""Handlers that wait 5 ms: how much faster than one after the other, with the order of every key checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import handlers
from benchmarks.daemon import run_daemon, settings_of
from benchmarks.measure import Meter
from consumer.domain.record import Record

PAUSE = 0.005  # seconds of a handler call
Seen = tuple[str, Sequence[Record], bool]  # shard, the record of a call, begins or ends
MOST_OF_A_SHARD = 250  # of the 256 that the setting allows


def shards_for(width: int) -> int:
    """How many shards the daemon needs for that many batches at the same time."""
    return -(-width // MOST_OF_A_SHARD)


def daemon(stream: str, table: str, keys: int, width: int, records: int, one_fails: bool = False) -> dict[str, float]:
    """One record a call over ``keys`` keys (over all shards), ``width`` calls at the same time. With ``one_fails``
    every call for the key of the first record fails."""
    seen: list[Seen] = []
    failing: list[bytes] = []

    async def wait(batch: Sequence[Record], context: Any) -> None:
        if one_fails and not failing:
            failing.append(bytes(batch[0].dynamodb.Keys))
        if failing and bytes(batch[0].dynamodb.Keys) in failing:
            await asyncio.sleep(PAUSE)
            raise ValueError("one key fails")
        seen.append((context.shard_id, batch, True))
        await asyncio.sleep(PAUSE)
        seen.append((context.shard_id, batch, False))

    async def run() -> tuple[float, float]:
        vars(handlers)["wait"] = wait
        serial = await _serial()
        stop = asyncio.Event()
        meter = Meter(records, warm_up=records // 10, on_end=stop.set)
        batch = {"batch_size": 1, "parallelization_factor": width // shards_for(width)}
        await run_daemon(
            settings_of(stream, table, {"target": "benchmarks.handlers:wait"}, batch=batch), meter.count, stop
        )
        return serial, meter.measured / meter.wall_seconds

    serial, per_second = asyncio.run(run())
    return {**_speed(serial, per_second, min(keys, width)), "disordered": _disordered(seen)}


def _disordered(seen: Sequence[Seen]) -> int:
    """How many calls began while another one of their key was running, or after a later record of it.

    Looked at when all is over, so that the clock does not count it.
    """
    last: dict[tuple[str, bytes], int] = {}
    running: set[tuple[str, bytes]] = set()
    count = 0
    for shard_id, (record,), begins in seen:
        key, number = (shard_id, bytes(record.dynamodb.Keys)), int(record.sequence_number)
        if not begins:
            running.discard(key)
            continue
        if key in running or last.get(key, 0) >= number:
            count += 1
        running.add(key)
        last[key] = number
    return count


def bare_tasks(stream: str, width: int, records: int) -> dict[str, float]:
    """As many tasks at the same time without any order: what asyncio itself can do."""

    async def run() -> tuple[float, float]:
        serial = await _serial()
        turns = asyncio.Semaphore(width)

        async def one() -> None:
            async with turns:
                await asyncio.sleep(PAUSE)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(records):
                group.create_task(one())
        return serial, records / (time.perf_counter() - started)

    serial, per_second = asyncio.run(run())
    return _speed(serial, per_second, width)


def _speed(serial: float, per_second: float, most: int) -> dict[str, float]:
    speed_up = serial * per_second
    return {"per_second": per_second, "speed_up": speed_up, "share": speed_up / most}


async def _serial() -> float:
    """Seconds of one call when they come one after the other."""
    started = time.perf_counter()
    for _ in range(100):
        await asyncio.sleep(PAUSE)
    return (time.perf_counter() - started) / 100
