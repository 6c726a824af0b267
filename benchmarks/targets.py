"""What must hold, computed from the medians of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BOOKS = "books behind an old record"
Medians = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """``measure`` raises KeyError when the run had not the rows for it."""

    name: str
    bound: float
    at_least: bool
    measure: Callable[[Medians], float]
    unit: str = ""

    def holds(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def _ratio(one: str, other: str, field: str = "per_cpu_second") -> Callable[[Medians], float]:
    return lambda medians: float(medians[one][field] / medians[other][field])


def _value(row: str, field: str) -> Callable[[Medians], float]:
    return lambda medians: float(medians[row][field])


def _lambda_best(medians: Medians) -> float:
    rows = ("daemon, lambda, 1 process", "daemon, lambda, 2 processes")
    naive = float(medians["naive, lambda in-process"]["per_cpu_second"])
    return min(float(medians[row]["per_cpu_second"]) for row in rows) / naive


def _cold_start(medians: Medians) -> float:
    row = medians["cold start"]
    if row["shards"] < 5000:
        raise KeyError("a quick run says nothing of thousands of shards")
    return float(row["cpu_s"])


def _memory(medians: Medians) -> float:
    rows = [medians[row] for row in medians if row.startswith("memory, ")]
    if not rows:
        raise KeyError("memory")
    return max(float(row["peak_mib"] / row["allowed_mib"]) for row in rows)


TARGETS = (
    Target("no-op handler against the naive loop", 45, True, _ratio("daemon, no-op", "naive, no-op"), "x"),
    Target("no-op handler against the limit", 0.30, True, _ratio("daemon, no-op", "limit")),
    Target(
        "pages of 10: CPU per call against aioboto3",
        0.35,
        False,
        _ratio("daemon's source", "aioboto3, 10 records", "us_per_call"),
    ),
    Target("two fields against the naive loop", 40, True, _ratio("daemon, two fields", "naive, two fields"), "x"),
    Target("both images against the naive loop", 12, True, _ratio("daemon, both images", "naive, both images"), "x"),
    Target("lambda in worker processes against the naive loop (the worse of 1 and 2)", 10, True, _lambda_best, "x"),
    Target("event-loop lag at full load, p99", 50, False, _value("loop lag, daemon", "wall_p99_ms"), " ms"),
    Target("5 ms, 1000 keys, width 100: speed-up", 70, True, _value("5 ms, 1000 keys, width 100", "speed_up"), "x"),
    Target(
        "5 ms, 1000 keys, width 100: one key fails, against none",
        0.95,
        True,
        _ratio("5 ms, 1000 keys, width 100, one fails", "5 ms, 1000 keys, width 100", "speed_up"),
    ),
    Target("books behind an old record: MiB a million records", 10, False, _value(BOOKS, "mib_a_million")),
    Target("1000 idle shards: share of a core", 0.20, False, _value("idle, 1000 shards", "core_share")),
    Target(
        "1000 idle shards: GetRecords a shard-hour", 720, False, _value("idle, 1000 shards", "polls_per_shard_hour")
    ),
    Target(
        "2 workers, 1000 idle shards: lease writes an hour",
        3000,
        False,
        _value("idle, 1000 shards, 2 workers", "lease_writes_per_hour"),
    ),
    Target("checkpoint writes a shard and interval", 1.0, False, _value("catch-up", "saves_per_shard_second")),
    Target("cold start: CPU seconds for 5000 shards", 60, False, _cold_start, " s"),
    Target("cold start: longest stall of the loop", 1000, False, _value("cold start", "lag_max_ms"), " ms"),
    Target("stalled handler: peak RSS of what is allowed", 1.0, False, _memory),
)


def judge(medians: Medians) -> list[dict[str, Any]]:
    """One entry for every target that this run can tell."""
    found = []
    for target in TARGETS:
        try:
            value = target.measure(medians)
        except KeyError:
            continue
        sign = ">=" if target.at_least else "<="
        entry = {"target": target.name, "bound": f"{sign} {target.bound:g}{target.unit}", "measured": value}
        found.append({**entry, "ok": target.holds(value)})
    return found
