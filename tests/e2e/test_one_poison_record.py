"""One poison record, and nothing chosen: two real daemons with default settings, and a real Prometheus with the shipped
rules. Within two minutes of its first failure pages, metrics and alert name its shard, and the page's command shows it.

``tests/integration/test_one_poison_record.py`` is the same in virtual time, with more of what may happen meanwhile.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import in_this_process
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker, wait_until
from tests.e2e.hurt import has_event
from tests.e2e.prometheus import ask, needs_prometheus, scraping
from tests.e2e.test_default_settings import DEFAULTS
from tests.support.promtool import RULES

WITHIN = 120.0  # seconds from the first failure
OTHERS = 20  # keys

pytestmark = [pytest.mark.soak, needs_prometheus]


def start(fleet: Fleet, name: str) -> Worker:
    handler = {"timeout": "60s"}
    return fleet.start(name, **DEFAULTS, source={"poll": None}, leases={"duration": "10s"}, handler=handler)


def firing(port: int) -> list[tuple[str, str]]:
    """The alerts that ring, with their shards; none while Prometheus starts."""
    try:
        alerts = [alert for alert in ask(port, "alerts")["alerts"] if alert["state"] == "firing"]
    except OSError:
        return []
    return [(alert["labels"]["alertname"], alert["labels"].get("shard", "")) for alert in alerts]


def first_problem(worker: Worker) -> dict[str, Any]:
    return next(iter(worker.status().get("problems", [])), {"code": "", "shards": [], "command": ""})


def test_within_two_minutes_it_is_said(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    owner = start(fleet, "w1")
    fleet.wait_for(aws.write(fleet.table, OTHERS, range(1, 3)))
    wait_until(owner.owned, 30, "it owns the shard")
    (shard,) = [one["shard_id"] for one in owner.owned()]
    other = start(fleet, "w2")
    wait_until(lambda: other.status().get("ready"), 30, "the other worker stands by")

    with scraping([owner.port, other.port], tmp_path, interval="15s", rules=[RULES]) as port:
        wait_until(lambda: "Healthy" in owner.status().get("headline", ""), 30, "nothing is wrong")
        aws.poison(fleet.table, "bad", 1)
        wait_until(lambda: has_event(owner, "batch.failed"), 30, "it fails")
        failed_at, version = time.monotonic(), 2
        said: dict[str, float] = {}

        def look() -> bool:
            """Also writes a record of each other key: the shard goes on."""
            nonlocal version
            version += 1
            aws.write(fleet.table, OTHERS, range(version, version + 1))
            holds = {
                "page": first_problem(owner)["code"] == "stuck_keys",
                "page of the other worker": first_problem(other)["code"] == "stuck_keys_elsewhere",
                "metrics": owner.metric(f'stream_consumer_failing_seconds{{shard="{shard}"}}') > 0,
                "alert": ("StreamConsumerStuckKey", shard) in firing(port),
            }
            for what in (what for what, is_said in holds.items() if is_said):
                said.setdefault(what, time.monotonic() - failed_at)
            time.sleep(1)
            return said.keys() == holds.keys()

        wait_until(look, WITHIN, "page, metrics and alert say so")
        assert max(said.values()) < WITHIN, said
        assert firing(port) == [("StreamConsumerStuckKey", shard)], "nothing else is wrong"

    for worker in (owner, other):
        assert shard in worker.status()["headline"]
        assert first_problem(worker)["shards"] == [shard]
    assert "(ValueError)" in owner.status()["headline"]
    record = shown_by(first_problem(owner)["command"], "bad")
    event = tmp_path / "event.json"
    event.write_text(json.dumps(record))
    tried = in_this_process(("invoke", "--config", str(owner.config), "--event", str(event)))
    assert tried.returncode == 1
    assert "poison: bad version 1" in tried.stdout + tried.stderr
    elsewhere = in_this_process(tuple(shlex.split(first_problem(other)["command"])[1:]))
    assert (elsewhere.returncode, shard in elsewhere.stdout) == (0, True)


def shown_by(command: str, key: str) -> dict[str, Any]:
    """The record of this key among those that the command of a page prints."""
    done = in_this_process(tuple(shlex.split(command)[1:]))
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = [record for record in records if record["dynamodb"]["Keys"]["pk"]["S"] == key]
    return dict(found)
