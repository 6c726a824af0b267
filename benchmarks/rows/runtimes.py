"""CPU of one call of a Lambda function with 100 records: by the runtime of this package, and by AWS's own client behind
the Runtime API. Only the way to the function is measured: no stream, no leases."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import tree_cpu
from benchmarks.stub_stream import STREAM_ARN, Stream
from consumer.aws.pages import decode_page
from consumer.domain.outcome import HandlerCall
from consumer.handlers.build import pool_of_programs, pool_of_workers
from consumer.handlers.process_pool import ProcessPoolHandler

ROOT = Path(__file__).resolve().parents[2]
RUNTIME_PYTHON = ROOT / ".venv-runtime" / "bin" / "python"  # with awslambdaric, without msgspec
RECORDS = 100
WARM_UP = 50
TARGET = "benchmarks.lambda_function.on_lambda"


def calls(stream: str, kind: str, calls: int) -> dict[str, float]:
    """``kind``: built_in (in the daemon's Python), other_python, or awslambdaric. The servers are not asked."""
    return asyncio.run(_measure(_pool(kind), calls))


def _pool(kind: str) -> ProcessPoolHandler:
    options: dict[str, Any] = {"processes": 1, "report_failures": True, "application": "bench", "region": "eu-west-1"}
    if kind == "awslambdaric":
        return pool_of_programs([str(RUNTIME_PYTHON), "-m", "awslambdaric", TARGET], str(ROOT), **options)
    python = str(RUNTIME_PYTHON) if kind == "other_python" else None
    return pool_of_workers("lambda", TARGET, str(ROOT), python=python, **options)


async def _measure(pool: ProcessPoolHandler, calls: int) -> dict[str, float]:
    batch = tuple(decode_page(Stream().page(0, 0, RECORDS), STREAM_ARN).records)
    await pool.start()
    try:
        await _run(pool, batch, WARM_UP)
        (own, children), wall = tree_cpu(), time.perf_counter()
        await _run(pool, batch, calls)
        (own_now, children_now), wall = tree_cpu(), time.perf_counter() - wall
    finally:
        await pool.close()
    daemon, function = (1e6 * spent / calls for spent in (own_now - own, children_now - children))
    return {
        "calls": calls,
        "us_per_call": daemon + function,
        "us_daemon": daemon,
        "us_function": function,
        "us_per_record": (daemon + function) / len(batch),
        "wall_us_per_call": 1e6 * wall / calls,
    }


async def _run(pool: ProcessPoolHandler, batch: tuple[Any, ...], calls: int) -> None:
    for number in range(calls):
        call = HandlerCall(batch, f"00000000-0000-4000-8000-{number:012d}", 1, "bench", "shard", 1, 60.0)
        reservation = await pool.reserve()
        try:
            outcome = await reservation.run(call)
        finally:
            reservation.release()
        assert outcome.kind == "ok", outcome
