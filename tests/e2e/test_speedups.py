"""A daemon that finds the compiled code uses it wherever handlers run, and says so; one that must not, does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from consumer.domain.compiled_values import PACKAGE, VARIABLE
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until

HANDLER = """
import json, pathlib, sys
def handle(records, context):
    item = records[0].new_image
    module = sys.modules[type(records[0]).__module__]
    compiled = module.item_from_json.__globals__["_compiled"]
    used = compiled is not None and compiled(records[0].dynamodb.NewImage) == item
    told = json.dumps([used, str(item["version"])])
    with pathlib.Path(__file__).with_name("said").open("a") as file:
        file.write(told + "\\n")
"""


def started_with(fleet: Fleet, aws: Aws, folder: Path, isolation: str, environment: dict[str, str]) -> tuple[Any, Any]:
    """What the event of the start says, and what the handler was called with."""
    (folder / "telling.py").write_text(HANDLER)
    handler = {"kind": "python", "isolation": isolation, "target": "telling:handle", "path": str(folder)}
    worker = fleet.start("w", environment, handler=handler)
    aws.write(fleet.table, 1, range(3, 4))
    said = folder / "said"
    wait_until(lambda: said.exists() and said.read_text().endswith("\n"), 30, "the handler was called")
    (event,) = [event for event in worker.events() if event["event"] == "daemon.started"]
    return event["values_made_by"], json.loads(said.read_text().splitlines()[0])


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_it_is_used_where_handlers_run(
    fleet: Fleet, aws: Aws, speedups_folder: Path, tmp_path: Path, isolation: str
) -> None:
    found = started_with(fleet, aws, tmp_path, isolation, {"PYTHONPATH": str(speedups_folder)})
    assert found == ("compiled code", [True, "3"])


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_it_is_not_used_when_it_is_turned_off(
    fleet: Fleet, aws: Aws, speedups_folder: Path, tmp_path: Path, isolation: str
) -> None:
    environment = {"PYTHONPATH": str(speedups_folder), VARIABLE: "0"}
    assert started_with(fleet, aws, tmp_path, isolation, environment) == ("Python", [False, "3"])


def test_one_that_is_not_fit_is_named(fleet: Fleet, aws: Aws, tmp_path: Path) -> None:
    (tmp_path / f"{PACKAGE}.py").write_text("FORMAT = 0\n")
    found = started_with(fleet, aws, tmp_path, "inline", {"PYTHONPATH": str(tmp_path)})
    assert found == ("Python", [False, "3"])
    (event,) = [event for event in fleet.workers[0].events() if event["event"] == "speedups.unfit"]
    assert event["level"] == "warning"
    assert "format is 0" in event["reason"]
