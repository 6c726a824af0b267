"""What is seen from outside a daemon process: idle cost, memory, a backlog, and the start."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import Any

from benchmarks.process import daemon_process, frontier_writes, wait_for
from benchmarks.servers import child_environment, steer

API = "stream_consumer_api_calls_total"
READS = ("GetItem", "Query")
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")
BACKED_OFF = 14.0  # seconds until polls are 5 s apart


def idle(stream: str, table: str, shards: int, workers: int, seconds: float) -> dict[str, float]:
    """Shards without records, polls backed off; then one record, to see when it arrives."""
    steer(stream, "Configure", shards=shards, records=0)
    fleet = f"bench-idle-{shards}-{workers}-{time.time_ns()}"
    with contextlib.ExitStack() as stack:
        daemons = [
            stack.enter_context(daemon_process(stream, table, "stamp", application=fleet)) for _ in range(workers)
        ]
        shard_lines = ('stream_consumer_leases{state="owned"}',)
        wait_for(lambda: sum(daemon.metric(*shard_lines) for daemon in daemons) >= shards, 120, pause=0.5)
        time.sleep(BACKED_OFF)

        def calls(*operations: str) -> float:
            return sum(daemon.metric(*(f'{API}{{operation="{name}"}}' for name in operations)) for daemon in daemons)

        reads, writes = calls(*READS), calls(*WRITES)
        cpu = sum(daemon.cpu() for daemon in daemons)
        polls, started = steer(stream, "Stats")["calls"].get("GetRecords", 0), time.monotonic()
        time.sleep(seconds)
        polls, window = steer(stream, "Stats")["calls"].get("GetRecords", 0) - polls, time.monotonic() - started
        cpu = sum(daemon.cpu() for daemon in daemons) - cpu
        reads, writes = calls(*READS) - reads, calls(*WRITES) - writes
        wakes = [_wake_up(stream, daemons, shard) for shard in range(min(shards, 5))]
    hourly = 3600 / window
    return {
        "core_share": cpu / window / workers,
        "us_per_poll": 1e6 * cpu / polls if polls else 0.0,
        "polls_per_shard_hour": polls * hourly / shards,
        "lease_reads_per_hour": reads * hourly,
        "lease_writes_per_hour": writes * hourly,
        "wake_up_mean_s": sum(wakes) / len(wakes),
        "wake_up_max_s": max(wakes),
    }


def _wake_up(stream: str, daemons: list[Any], shard: int) -> float:
    before = sum(len(daemon.stamps()) for daemon in daemons)
    put = steer(stream, "Put", shard=shard, count=1)["now"]
    wait_for(lambda: sum(len(daemon.stamps()) for daemon in daemons) > before, 30, pause=0.02)
    return float(max(stamp for daemon in daemons for stamp in daemon.stamps()) - put)


def memory(stream: str, table: str, shards: int, buffer_mib: int, seconds: float) -> dict[str, float]:
    """A handler that never ends, and full pages on every shard: what the process holds after ``seconds``."""
    steer(stream, "Configure", shards=shards, records=0)
    limits = {"buffer": f"{buffer_mib}MiB"}
    with daemon_process(stream, table, "stall", limits=limits) as daemon:
        wait_for(lambda: daemon.metric('stream_consumer_leases{state="owned"}') >= shards, 60)
        time.sleep(1)
        empty = daemon.memory("VmRSS")
        steer(stream, "Configure", shards=shards)
        time.sleep(seconds)
        held = daemon.metric("stream_consumer_in_flight_records")
        full, peak = daemon.memory("VmRSS"), daemon.memory("VmHWM")
    mib = 1024.0**2
    return {
        "buffer_mib": buffer_mib,
        "empty_mib": empty / mib,
        "rss_mib": full / mib,
        "peak_mib": peak / mib,
        "allowed_mib": 1.5 * buffer_mib + 80,
        "records_held": held,
        "bytes_per_record": (full - empty) / held if held else 0.0,
    }


def catch_up(stream: str, table: str, shards: int, records: int) -> dict[str, float]:
    """A backlog of ``records`` in all, from process start to everything settled."""
    steer(stream, "Configure", shards=shards, records=records // shards)
    fleet = f"bench-catch-up-{time.time_ns()}"
    with daemon_process(stream, table, "stamp_first", application=fleet) as daemon:
        wait_for(lambda: daemon.metric('stream_consumer_records_total{result="handled"}') >= records, 600, pause=0.1)
        saves = frontier_writes(table, fleet)
        total = time.monotonic() - daemon.started
        first = min(daemon.stamps()) - daemon.started
    return {
        "records": records,
        "first_record_s": first,
        "total_s": total,
        "per_second": records / (total - first),
        "checkpoints": saves,
        "saves_per_shard_second": (saves - shards) / shards / (total - first),  # the first one waits for nothing
    }


def start(stream: str, table: str) -> dict[str, float]:
    """A second worker joins a running fleet: from its process start to its first handler call."""
    steer(stream, "Configure", shards=4, rate=1000)
    fleet = f"bench-start-{time.time_ns()}"
    with daemon_process(stream, table, "stamp", application=fleet) as first:
        wait_for(lambda: bool(first.stamps()), 60)
        alone = min(first.stamps()) - first.started
        with daemon_process(stream, table, "stamp", application=fleet) as second:
            wait_for(lambda: bool(second.stamps()), 60)
            joined = min(second.stamps()) - second.started
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "consumer", "--help"], env=child_environment(), check=True, capture_output=True
    )
    return {"empty_table_s": alone, "joins_fleet_s": joined, "help_s": time.monotonic() - started}
