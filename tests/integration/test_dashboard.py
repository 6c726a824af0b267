"""The Grafana dashboard is what its generator makes, and every query of it is PromQL on metrics that exist."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import yaml

from tests.support.dashboard import COMMITTED, generator, panels, queries
from tests.support.promtool import ROOT, RULES, check_expressions, needs_promtool


def test_it_is_what_the_generator_makes() -> None:
    assert json.loads(COMMITTED.read_text()) == generator().dashboard(), (
        "python deploy/grafana/generate.py > deploy/grafana/stream-consumer.json"
    )


@needs_promtool
def test_every_query_is_promql(tmp_path: Path) -> None:
    check_expressions(tmp_path, [expr for _, expr in queries()])


def _metrics_in(expr: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", n) for n in re.findall(r"(?:stream_consumer|process)_[a-z_]+", expr)}


def test_every_metric_is_documented() -> None:
    documented = set(re.findall(r"`((?:stream_consumer|process)_[a-z_]+)", (ROOT / "docs" / "metrics.md").read_text()))
    for title, expr in queries():
        assert _metrics_in(expr), title
        assert _metrics_in(expr) <= documented, title


def test_what_rings_can_be_seen() -> None:
    """Every metric of an alert has a picture."""
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    shown = {name for _, expr in queries() for name in _metrics_in(expr)}
    assert {name for rule in rules for name in _metrics_in(rule["expr"])} - shown <= {"process_start_time_seconds"}


def test_every_query_is_about_the_chosen_application() -> None:
    for panel in panels():
        for target in panel["targets"]:
            assert 'application=~"$application",table=~"$table"' in target["expr"], panel["title"]
            used = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert used <= set(re.findall(r"\w+", target["expr"])) | {"instance", "application"}, panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    board = json.loads(COMMITTED.read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells: Counter[tuple[int, int]] = Counter()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert max(cells.values()) == 1
