"""``make bench``: all rows in interleaved rounds, medians, the targets, JSON and a plot in ``benchmarks/results``."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import machine, plan, report
from benchmarks.plan import Result, Row
from benchmarks.servers import StubStream
from benchmarks.targets import judge
from demo.local_aws import LocalAws, find_local_aws_python

RESULTS = Path(__file__).parent / "results"
QUICK = 0.25  # of the records, and one round: to see that everything works


def medians_of(results: dict[str, list[Result]]) -> dict[str, Result]:
    """The median of each number over the rounds."""
    return {
        name: {key: statistics.median(result[key] for result in found) for key in found[0]}
        for name, found in results.items()
    }


def in_random_order(rows: list[Row], seed: int) -> list[Row]:
    """So that no row always runs after the same other one. The rows of a group stay together: they are compared, and
    how busy the machine is changes."""
    order = random.Random(seed)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    shuffled = list(groups.values())
    order.shuffle(shuffled)
    for group in shuffled:
        order.shuffle(group)
    return [row for group in shuffled for row in group]


def run(selected: list[str], rounds: int, scale: float) -> dict[str, Any]:
    """Everything that was selected (by group or name; nothing selects all)."""
    results: dict[str, list[Result]] = defaultdict(list)

    skipped: set[str] = set()

    def wanted(row: Row) -> bool:
        if selected and not any(word in (row.group, row.name) for word in selected):
            return False
        if row.needs is None or row.needs.there:
            return True
        if row.name not in skipped:
            skipped.add(row.name)
            missing = f"there is no {row.needs.what} ({row.needs.made_by} makes it)"
            print(f"{row.name}: skipped, {missing}", file=sys.stderr, flush=True)
        return False

    def measure(row: Row, stream: str, table: str) -> None:
        started, load = time.monotonic(), machine.load()
        result = {**row.run(stream, table), "load": load}
        results[row.name].append(result)
        shown = report.table({row.name: result})
        print(f"[{time.monotonic() - started:5.1f} s] {shown}", file=sys.stderr, flush=True)

    with StubStream() as stub, LocalAws(find_local_aws_python()) as aws:
        for number in range(rounds):
            for row in in_random_order([row for row in plan.repeated(scale) if wanted(row)], number):
                measure(row, stub.endpoint, aws.endpoint)
        for row in plan.once(scale):
            if wanted(row) and row.name not in results:
                measure(row, stub.endpoint, aws.endpoint)
    names = [row.name for row in (*plan.repeated(scale), *plan.once(scale)) if row.name in results]
    return {"medians": medians_of({name: results[name] for name in names}), "rounds": dict(results)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="groups or names of rows; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a quarter of the work, one round")
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    scale = QUICK if given.quick else 1.0
    about = {**machine.description(), "rounds": 1 if given.quick else given.rounds, "scale": scale}
    print(report.heading(about, machine.load()), file=sys.stderr, flush=True)
    found = run(given.rows, about["rounds"], scale)
    targets = judge(found["medians"])
    print(report.heading(about, machine.load()))
    print(report.table(found["medians"]))
    print()
    print(report.verdicts(targets))
    given.output.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"about": about, "targets": targets, **found}, indent=1)
    (given.output / "last.json").write_text(document + "\n")
    if plot := report.chart(found["medians"]):
        (given.output / "throughput.svg").write_text(plot)
    return 0 if all(entry["ok"] for entry in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
