"""The tables of docs/performance.md out of a run: ``python -m benchmarks.tables`` puts those of
``benchmarks/results/last.json`` between the marks of the page, so that no figure is copied by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report

ROOT = Path(__file__).resolve().parents[1]
LAST = ROOT / "benchmarks" / "results" / "last.json"
PAGE = ROOT / "docs" / "performance.md"
Row = Mapping[str, Any]
Medians = Mapping[str, Row]

# The row by hand that does the same work; what is not here does nothing with a record.
_BY_HAND = {
    "two fields": "naive, two fields",
    "both images": "naive, both images",
    "lambda": "naive, lambda in-process",
    "1 KB": "naive, no-op, 1 KB",
}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _machine(run: Mapping[str, Any]) -> str:
    about = run["about"]
    loads = [float(row["load"]) for rounds in run["rounds"].values() for row in rounds]
    return (
        f"{about['cpu']}, {about['cores']} cores, Python {about['python']}; medians of {about['rounds']} rounds; "
        f"load average beside the rows {min(loads):.1f} to {max(loads):.1f}, the run itself included."
    )


def _throughput(run: Mapping[str, Any]) -> str:
    medians: Medians = run["medians"]
    rows = []
    for name, row in medians.items():
        if "us_per_record" not in row or "per_cpu_second" not in row:
            continue
        by_hand = next((other for part, other in _BY_HAND.items() if part in name), report.BASELINE)
        against = (
            "" if name.startswith("naive") else f"{row['per_cpu_second'] / medians[by_hand]['per_cpu_second']:.1f}x"
        )
        rows.append([name, f"{row['per_cpu_second']:,.0f}", f"{row['us_per_record']:.1f}", against])
    return _table(["row", "records per CPU-second", "us a record", "against the loop that does the same"], rows)


def _small_pages(run: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{run['medians'][name]['us_per_call'] / 1e3:.2f} ms"]
        for name in ("aioboto3, 10 records", "daemon's source")
    ]
    return _table(["pages of 10 records", "CPU a call"], rows)


def _runtimes(run: Mapping[str, Any]) -> str:
    named = {
        "call of 100, built-in": "built-in kind",
        "call of 100, built-in, handler.python": "built-in kind, `handler.python` (no msgspec there)",
        "call of 100, awslambdaric": "`handler.command`, awslambdaric in the same environment",
    }
    rows = []
    for name, shown in named.items():
        row = run["medians"][name]
        each = [f"{row[field] / 1e3:.1f} ms" for field in ("us_daemon", "us_function", "us_per_call")]
        rows.append([shown, *each, f"{row['us_per_record']:.0f} us"])
    return _table(["CPU a call of 100 records", "daemon", "function's process", "both", "a record"], rows)


def _latency(run: Mapping[str, Any]) -> str:
    rows = []
    for share in ("10%", "50%", "90%"):
        row = run["medians"][f"latency at {share}"]
        name = f"at {share} of the measured maximum ({row['rate']:,.0f} records/s)"
        rows.append([name, *(f"{row[field]:,.0f} ms" for field in ("p50_ms", "p99_ms", "lag_max_ms"))])
    return _table(["from readable to handler start", "p50", "p99", "longest stall of the loop"], rows)


def _lag(run: Mapping[str, Any]) -> str:
    rows = []
    for name in ("naive", "daemon"):
        row = run["medians"][f"loop lag, {name}"]
        rows.append([name, f"{row['lag_p99_ms']:,.0f} ms", f"{row['lag_max_ms']:,.0f} ms"])
    return _table(["event loop flat out", "lag p99", "longest"], rows)


def _concurrency(run: Mapping[str, Any]) -> str:
    rows = []
    for name, row in run["medians"].items():
        if name.startswith("5 ms, "):
            rows.append([name.removeprefix("5 ms, "), f"{row['speed_up']:.1f}x", f"{row['share']:.2f}"])
    return _table(
        ["5 ms handlers, batches of one", "speed-up against one after the other", "share of what is possible"], rows
    )


def _idle(run: Mapping[str, Any]) -> str:
    rows = []
    for name, row in run["medians"].items():
        if name.startswith("idle, "):
            rows.append(
                [
                    name.removeprefix("idle, "),
                    f"{row['core_share']:.1%}",
                    *(
                        f"{row[field]:,.0f}"
                        for field in ("polls_per_shard_hour", "lease_reads_per_hour", "lease_writes_per_hour")
                    ),
                    f"{row['wake_up_mean_s']:.1f} s, {row['wake_up_max_s']:.1f} s",
                ]
            )
    head = ["idle", "share of a core (each worker)", "GetRecords a shard-hour", "lease reads/h", "lease writes/h"]
    return _table([*head, "wake-up, mean and longest"], rows)


def _processes(run: Mapping[str, Any]) -> str:
    medians: Medians = run["medians"]
    lines = []
    for name, row in medians.items():
        if name.startswith("memory, "):
            lines.append(
                f"* Memory, {name.removeprefix('memory, ')}, handlers stalled, 64 shards of full pages: peak RSS "
                f"{row['peak_mib']:.0f} MiB of {row['allowed_mib']:.0f} allowed (a fresh process has "
                f"{row['empty_mib']:.0f}), {row['bytes_per_record'] / 1e3:.1f} KB a held record of 2 KB."
            )
    row = medians["catch-up"]
    lines.append(
        f"* Backlog of {row['records']:,.0f} records on 4 shards: first record after {row['first_record_s']:.1f} s, "
        f"everything settled after {row['total_s']:.1f} s, {row['saves_per_shard_second']:.2f} checkpoints a shard "
        "and second."
    )
    row = medians["start"]
    lines.append(
        f"* Start: first handler call {row['empty_table_s']:.1f} s after the process start on an empty lease table, "
        f"{row['joins_fleet_s']:.1f} s when joining a fleet (a peer hands over shards); `--help` {row['help_s']:.2f} s."
    )
    return "\n".join(lines)


# What chance makes of it on a machine that is never late, at these rates: with a write at once when the last one is
# older than an interval, and with one an interval after something has moved (docs/performance.md#after-a-crash).
_EXPECTED = {0.2: (0.02, 0.18), 1.0: (0.37, 0.75), 10.0: (5.0, 5.5), 100.0: (50.0, 50.0), 1000.0: (500.0, 500.0)}


def _crash(run: Mapping[str, Any]) -> str:
    rows = []
    for name, row in run["medians"].items():
        if name.startswith("crash at "):
            shown = (row["repeated_a_shard"], *_EXPECTED[float(row["rate"])])
            repeated = [f"{value:.2g}" if value < 10 else f"{value:,.0f}" for value in shown]
            rows.append([f"{row['rate']:,g}", *repeated, f"{row['writes_a_shard_second']:.2f}"])
    head = [
        "records/s a shard",
        "repeated a shard and kill",
        "expected",
        "expected of a write at the end of an interval",
    ]
    return _table([*head, "writes a shard and second"], rows)


# Of a run on a machine that did nothing else, in an earlier state of the code: medians of three rounds.
_QUIET = {
    "no-op handler against the naive loop": 92.2,
    "no-op handler against the limit": 0.506,
    "pages of 10: CPU per call against aioboto3": 0.14,
    "lambda in worker processes against the naive loop (the worse of 1 and 2)": 27.2,
    "loop stalls at full load, p99, against the naive loop's": 0.016,
    "5 ms, 1000 keys, width 100: against bare tasks": 0.957,
    "1000 idle shards: CPU of a poll against a call of aioboto3": 0.23,
    "1000 idle shards: GetRecords a shard-hour": 719.0,
    "2 workers, 1000 idle shards: lease writes an hour": 2880.0,
    "checkpoint writes a shard and interval": 0.832,
    "stalled handler: peak RSS of what is allowed": 0.92,
}


def _targets(run: Mapping[str, Any]) -> str:
    rows = []
    for entry in run["targets"]:
        quiet = _QUIET.get(entry["target"])
        measured, verdict = report.short(entry["measured"]), "" if entry["ok"] else " **missed**"
        rows.append([entry["target"], entry["bound"], measured + verdict, "" if quiet is None else report.short(quiet)])
    return _table(["target", "", "this run", "an earlier one on a quiet machine"], rows)


TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "machine": _machine,
    "throughput": _throughput,
    "small pages": _small_pages,
    "runtimes": _runtimes,
    "latency": _latency,
    "lag": _lag,
    "concurrency": _concurrency,
    "idle": _idle,
    "processes": _processes,
    "crash": _crash,
    "targets": _targets,
}
_MARKED = re.compile(r"(<!-- bench: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, run: Mapping[str, Any]) -> str:
    """The page with the tables of this run between its marks. KeyError for a mark that names no table."""
    return _MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](run)}\n\n{found[3]}", page)


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text(), json.loads(LAST.read_text())))


if __name__ == "__main__":
    main()
