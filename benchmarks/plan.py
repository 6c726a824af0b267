"""Which rows a run has: each is a name, how the stub is set before it, and what is run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from benchmarks.row import run_row
from benchmarks.rows.concurrency import shards_for
from benchmarks.rows.runtimes import ROOT, RUNTIME_PYTHON
from benchmarks.servers import steer
from consumer.domain.compiled_values import PACKAGE

SHARDS = 4
Result = dict[str, Any]


@dataclass(frozen=True)
class Need:
    """What not every checkout has, and what makes it."""

    what: str
    there: bool
    made_by: str


@dataclass(frozen=True)
class Row:
    """``group`` is what ROWS= selects by. ``stub`` configures the stream first; None leaves that to the row. Without
    what it ``needs`` the row is skipped."""

    group: str
    name: str
    module: str
    function: str
    arguments: dict[str, Any]
    stub: dict[str, Any] | None = field(default_factory=lambda: {"shards": SHARDS})
    table: bool = True
    needs: Need | None = None

    def run(self, stream: str, table: str) -> Result:
        if self.stub is not None:
            steer(stream, "Configure", **self.stub)
        servers = {"stream": stream, **({"table": table} if self.table else {})}
        return run_row(self.module, self.function, servers | self.arguments)


def _throughput(scale: float) -> list[Row]:
    """Records per CPU-second; the fast rows get 20 times the records of the slow ones, about two seconds each."""
    slow, fast = int(8_000 * scale), int(160_000 * scale)

    def naive(name: str, handler: str, **stub: Any) -> Row:
        arguments = {"records": slow, "shards": SHARDS, "handler": handler}
        return Row("throughput", name, "throughput", "naive_loop", arguments, {"shards": SHARDS, **stub}, table=False)

    def daemon(name: str, handler: dict[str, Any], records: int, **stub: Any) -> Row:
        arguments = {"records": records, "handler": handler}
        return Row("throughput", name, "throughput", "daemon", arguments, {"shards": SHARDS, **stub})

    def inline(function: str) -> dict[str, Any]:
        return {"target": f"benchmarks.handlers:{function}"}

    def on_lambda(processes: int) -> dict[str, Any]:
        target = "benchmarks.handlers:on_lambda"
        return {"kind": "lambda", "isolation": "process", "target": target, "processes": processes}

    plain = daemon("daemon, both images", inline("both_images"), fast // 2)
    compiled = replace(
        plain,
        name=f"{plain.name}, compiled",
        arguments={**plain.arguments, "compiled": True},
        needs=Need("compiled code", find_spec(PACKAGE) is not None, "make speedups"),
    )
    filtered = daemon("daemon, no-op, filters on", inline("nothing"), fast // 2)
    filtered.arguments["sections"] = {"filters": [{"eventName": ["MODIFY", "INSERT"]}]}
    limit = {"records": fast, "shards": SHARDS}
    return [
        Row("throughput", "limit", "throughput", "limit", limit, table=False),
        naive("naive, no-op", "nothing"),
        daemon("daemon, no-op", inline("nothing"), fast),
        filtered,
        daemon("daemon, reads keys", inline("keys"), fast // 2),
        naive("naive, two fields", "two_fields"),
        daemon("daemon, two fields", inline("two_fields"), fast // 2),
        naive("naive, both images", "both_images"),
        daemon("daemon, both images typed", inline("both_images_typed"), fast // 2),
        plain,
        compiled,
        naive("naive, lambda in-process", "call_lambda"),
        daemon("daemon, lambda, 1 process", on_lambda(1), fast // 3),
        daemon("daemon, lambda, 2 processes", on_lambda(2), fast // 3),
        naive("naive, no-op, 1 KB", "nothing", size=1000),
        daemon("daemon, no-op, 1 KB", inline("nothing"), fast, size=1000),
    ]


def _small_pages(scale: float) -> list[Row]:
    stub = {"page": 10}
    sdk: dict[str, Any] = {"calls": int(300 * scale)}
    ours: dict[str, Any] = {"calls": int(2000 * scale)}
    return [
        Row("small_pages", "aioboto3, 10 records", "small_pages", "sdk", sdk, stub, table=False),
        Row("small_pages", "daemon's source", "small_pages", "source", ours, stub, table=False),
    ]


def _runtimes(scale: float) -> list[Row]:
    other = Need(str(RUNTIME_PYTHON.relative_to(ROOT)), RUNTIME_PYTHON.exists(), "make")

    def row(name: str, kind: str, needs: Need | None) -> Row:
        arguments = {"kind": kind, "calls": int(600 * scale)}
        return Row("runtimes", name, "runtimes", "calls", arguments, None, table=False, needs=needs)

    return [
        row("call of 100, built-in", "built_in", None),
        row("call of 100, built-in, handler.python", "other_python", other),
        row("call of 100, awslambdaric", "awslambdaric", other),
    ]


def _lag(scale: float) -> list[Row]:
    slow, fast = {"records": int(8_000 * scale), "shards": SHARDS}, {"records": int(300_000 * scale)}
    return [
        Row("lag", "loop lag, naive", "latency", "naive_flat_out", slow, table=False),
        Row("lag", "loop lag, daemon", "latency", "daemon_flat_out", fast),
    ]


def repeated(scale: float) -> list[Row]:
    """Rows that are compared with each other: run in interleaved rounds, judged by their medians."""
    width = {"width": 100, "records": int(20_000 * scale)}
    keys = {"shards": 1, "keys": 1000}
    return [
        *_throughput(scale),
        *_small_pages(scale),
        *_runtimes(scale),
        *_lag(scale),
        Row("concurrency", "5 ms, bare tasks, width 100", "concurrency", "bare_tasks", width, None, table=False),
        Row("concurrency", "5 ms, 1000 keys, width 100", "concurrency", "daemon", {"keys": 1000, **width}, keys),
        Row(
            "concurrency",
            "5 ms, 1000 keys, width 100, one fails",
            "concurrency",
            "daemon",
            {"keys": 1000, "one_fails": True, **width},
            keys,
        ),
        Row(
            "books", "books behind an old record", "books", "one_old_record", {"records": int(1_000_000 * scale)}, None
        ),
    ]


def once(scale: float) -> list[Row]:
    """Rows that are run once, after the others."""
    rows: list[Row] = []

    def outside(group: str, name: str, function: str, **arguments: Any) -> None:
        rows.append(Row(group, name, "whole_process", function, arguments, None))

    for share in (0.1, 0.5, 0.9):
        arguments = {"shards": SHARDS, "share": share, "seconds": max(1.0, 6 * scale), "flat_out": int(400_000 * scale)}
        rows.append(Row("latency", f"latency at {share:.0%}", "latency", "at_share", arguments, None))
    for keys in (10, 1000, 100_000):
        for width in (10, 100, 1000):
            name, shards = f"5 ms, {keys} keys, width {width}", shards_for(width)
            load = {"keys": keys, "width": width, "records": int(min(keys, width) * 200 * scale)}
            stub = {"shards": shards, "keys": max(1, keys // shards)}
            rows.append(Row("concurrency", name, "concurrency", "daemon", load, stub))
    for shards in (1, 100, 1000) if scale >= 1 else (1,):
        outside("idle", f"idle, {shards} shards", "idle", shards=shards, workers=1, seconds=max(2.0, 30 * scale))
    if scale >= 1:
        outside("idle", "idle, 1000 shards, 2 workers", "idle", shards=1000, workers=2, seconds=60.0)
    for buffer in (64, 256) if scale >= 1 else (64,):
        name, seconds = f"memory, buffer {buffer} MiB", max(3.0, 15 * scale)
        outside("memory", name, "memory", shards=64, buffer_mib=buffer, seconds=seconds)
    outside("catch_up", "catch-up", "catch_up", shards=SHARDS, records=int(1_000_000 * scale))
    for each in (0.2, 1, 10, 100, 1000) if scale >= 1 else (10,):
        shards, kills = (8, 6) if scale >= 1 else (2, 1)
        crashes: dict[str, Any] = {"shards": shards, "rate": each, "kills": kills}
        rows.append(Row("crash", f"crash at {each} records/s a shard", "crash", "crash", crashes, None))
    outside("start", "start", "start")
    cold = {"shards": 5000 if scale >= 1 else 100}
    rows.append(Row("start", "cold start", "cold_start", "cold_start", cold, None))
    return rows
