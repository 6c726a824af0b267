"""The real command and the real daemon: an application is set back, and another one begins beside it."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from tests.e2e.commands import consumer
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until
from tests.support.reshard_proxy import ProxyThread


def replay(fleet: Fleet, *options: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the document on standard output, and standard error."""
    done = consumer(fleet, "replay", "--config", "{config}", "--output", "json", *options)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


@pytest.mark.behind_proxy(shards=1)
def test_in_place_and_as_another_application(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    aws.write(fleet.table, 10, range(1, 4))
    first = fleet.start("first")
    wait_until(lambda: len(fleet.handled()) == 30, 60, "all is handled")
    everything = fleet.handled()
    code, _, error = replay(fleet, "--from", "trim_horizon", "--yes")
    assert (code, "workers of this application are running" in error) == (78, True), error
    first.send(signal.SIGTERM)
    assert first.wait() == 0

    code, counted, error = replay(fleet, "--from", "trim_horizon", "--dry-run")
    assert (code, counted["records"], counted["matched"]) == (0, 30, 30), error
    shown = consumer(fleet, "replay", "--config", "{config}", "--from", "trim_horizon", "--dry-run").stdout.splitlines()
    assert shown[1].split() == ["SHARD", "NOW", "THEN", "RECORDS", "MATCHED", "NOTE"]
    assert shown[2].split()[-2:] == ["30", "30"]
    code, _, error = replay(fleet, "--from", "trim_horizon")
    assert (code, "add --yes" in error) == (2, True), error
    code, written, error = replay(fleet, "--from", "trim_horizon", "--yes")
    assert (code, written["written"]) == (0, len(written["rows"])), error
    fleet.forget_journal()
    again = fleet.start("again")
    wait_until(lambda: fleet.handled() == everything, 60, "all is handled again")
    again.send(signal.SIGTERM)
    assert again.wait() == 0

    code, _, error = replay(fleet, "--from", "trim_horizon", "--as", "another", "--yes")
    assert code == 0, error
    code, _, error = replay(fleet, "--from", "trim_horizon", "--as", "another", "--yes")
    assert (code, "has rows already" in error) == (78, True), error
    fleet.forget_journal()
    fleet.start("another", application="another")
    wait_until(lambda: fleet.handled() == everything, 60, "another application handles all")
