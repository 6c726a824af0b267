"""What must hold, computed from the medians of one run. Ratios and counts only: no bound depends on the machine, or on
what else it does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BARE, ORDERED = "5 ms, bare tasks, width 100", "5 ms, 1000 keys, width 100"
IDLE = "idle, 1000 shards"
COMPILED = "daemon, both images, compiled"
LAG, P99 = "loop lag, daemon", "wall_p99_ms"
SDK, PER_CALL = "aioboto3, 10 records", "us_per_call"
RECORD = 2000  # bytes, of the records of nearly all rows
LEASE = 10_000  # ms: leases.duration as it comes
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


def _lambda_worse(medians: Medians) -> float:
    rows = ("daemon, lambda, 1 process", "daemon, lambda, 2 processes")
    naive = float(medians["naive, lambda in-process"]["per_cpu_second"])
    return min(float(medians[row]["per_cpu_second"]) for row in rows) / naive


def _books(medians: Medians) -> float:
    return float(medians["books behind an old record"]["mib_a_million"]) * 2**20 / 1e6 / RECORD


def _poll(medians: Medians) -> float:
    return float(medians[IDLE]["us_per_poll"] / medians[SDK][PER_CALL])


def _of_cold_start(medians: Medians, field: str) -> float:
    row = medians["cold start"]
    if row["shards"] < 5000:
        raise KeyError("a quick run says nothing of thousands of shards")
    return float(row[field])


def _cold_start(medians: Medians) -> float:
    us_per_shard = 1e6 * _of_cold_start(medians, "cpu_s") / float(medians["cold start"]["shards"])
    return us_per_shard / float(medians[SDK][PER_CALL])


def _cold_stall(medians: Medians) -> float:
    return _of_cold_start(medians, "lag_max_ms") / LEASE


def _memory(medians: Medians) -> float:
    rows = [medians[row] for row in medians if row.startswith("memory, ")]
    if not rows:
        raise KeyError("memory")
    return max(float(row["peak_mib"] / row["allowed_mib"]) for row in rows)


TARGETS = (
    Target("no-op handler against the naive loop", 90, True, _ratio("daemon, no-op", "naive, no-op"), "x"),
    Target("no-op handler against the limit", 0.50, True, _ratio("daemon, no-op", "limit")),
    Target("pages of 10: CPU per call against aioboto3", 0.35, False, _ratio("daemon's source", SDK, PER_CALL)),
    Target("two fields against the naive loop", 40, True, _ratio("daemon, two fields", "naive, two fields"), "x"),
    Target("both images, compiled, against the naive loop", 20, True, _ratio(COMPILED, "naive, both images"), "x"),
    Target("lambda in worker processes against the naive loop (the worse of 1 and 2)", 32, True, _lambda_worse, "x"),
    Target("loop stalls at full load, p99, against the naive loop's", 0.05, False, _ratio(LAG, "loop lag, naive", P99)),
    Target("5 ms, 1000 keys, width 100: against bare tasks", 0.95, True, _ratio(ORDERED, BARE, "per_second")),
    Target(
        "5 ms, 1000 keys, width 100: one key fails, against none",
        0.95,
        True,
        _ratio(f"{ORDERED}, one fails", ORDERED, "per_second"),
    ),
    Target("books behind an old record: share of a record's bytes", 0.005, False, _books),
    Target("1000 idle shards: CPU of a poll against a call of aioboto3", 0.35, False, _poll),
    Target("1000 idle shards: GetRecords a shard-hour", 720, False, _value(IDLE, "polls_per_shard_hour")),
    Target(
        "2 workers, 1000 idle shards: lease writes an hour",
        3000,
        False,
        _value(f"{IDLE}, 2 workers", "lease_writes_per_hour"),
    ),
    Target("checkpoint writes a shard and interval", 1.0, False, _value("catch-up", "saves_per_shard_second")),
    Target("cold start of 5000 shards: CPU of one in calls of aioboto3", 7, False, _cold_start),
    Target("cold start: longest stall of the loop, of leases.duration", 0.1, False, _cold_stall),
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
