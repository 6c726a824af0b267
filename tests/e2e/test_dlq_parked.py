"""on_failure.order: park_key, from poison to a key that is free: nothing is out of order, and nothing is lost."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import Dead, made
from tests.e2e.fleet import Fleet, out_of_order, wait_until
from tests.support.threads import repeatedly

MENDED = {"MENDED": "yes"}
BAD, GOOD = 6, 30  # keys


@pytest.fixture
def dead(request: pytest.FixtureRequest, aws: Aws, fleet: Fleet) -> Dead:
    return made(request.param, aws, fleet, order="park_key")


class Traffic:
    """New versions of all keys, bad ones and good ones, one after the other."""

    def __init__(self, aws: Aws, fleet: Fleet) -> None:
        self._aws = aws
        self._table = fleet.table
        self._keys = [f"bad{n:03d}" for n in range(BAD)] + [f"k{n:04d}" for n in range(GOOD)]
        self.version = 0
        self.written: set[tuple[str, int]] = set()

    def write(self, *, poison: bool = False) -> None:
        """Every key once; with ``poison`` the handler fails for the bad ones."""
        self.version += 1
        for key in self._keys:
            item: dict[str, Any] = {"pk": {"S": key}, "version": {"N": str(self.version)}}
            if poison and key.startswith("bad"):
                item["poison"] = {"BOOL": True}
            self._aws.dynamodb.put_item(TableName=self._table, Item=item)
            self.written.add((key, self.version))

    def flowing(self) -> AbstractContextManager[None]:
        """A round every fifth of a second."""
        return repeatedly(lambda _: self.write(), 0.2)


@pytest.fixture
def traffic(aws: Aws, fleet: Fleet) -> Traffic:
    return Traffic(aws, fleet)


def letters(fleet: Fleet) -> float:
    return sum(worker.metric("stream_consumer_dead_letters_total") for worker in fleet.workers)


@pytest.mark.parametrize("dead", ["s3", "sqs"], indirect=True)
def test_a_redrive_under_traffic_brings_every_key_back_in_order(fleet: Fleet, dead: Dead, traffic: Traffic) -> None:
    worker = fleet.start("w1", **dead.overrides)
    traffic.write(poison=True)
    traffic.write()
    wait_until(lambda: letters(fleet) >= 2 * BAD, 60, "the bad records and what follows them")
    listed = dead.list()
    assert len(listed["parked_keys"]) == BAD
    assert {one["state"] for one in listed["parked_keys"]} == {"parked"}
    assert dead.run("purge", "--yes").returncode == 1, "letters of parked keys stay"

    still_broken = dead.run("redrive", "--key", listed["parked_keys"][0]["key"])
    assert still_broken.returncode == 1, still_broken.stderr
    assert "left parked" in still_broken.stderr
    assert "poison" in still_broken.stderr

    dry = dead.run("redrive", "--dry-run", environment=MENDED)
    assert dry.returncode == 0, dry.stderr
    assert f"{BAD} parked keys would be freed" in dry.stdout
    assert len(dead.list()["parked_keys"]) == BAD

    with traffic.flowing():
        done = dead.run("redrive", "--concurrency", "3", environment=MENDED)
    assert done.returncode == 0, done.stderr
    assert f"{BAD} parked keys freed" in done.stdout
    fleet.wait_for(traffic.written)
    assert out_of_order(fleet.journal()) == 0
    after = dead.list()
    assert (after["parked_keys"], after["letters"]) == ([], 0)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("dead", ["s3", pytest.param("sqs", marks=pytest.mark.soak)], indirect=True)
def test_killed_workers_and_a_killed_redrive_lose_nothing_and_change_no_order(
    fleet: Fleet, dead: Dead, traffic: Traffic
) -> None:
    first = fleet.start("w1", **dead.overrides)
    fleet.start("w2", **dead.overrides)
    traffic.write(poison=True)
    wait_until(lambda: letters(fleet) >= BAD, 60, "the bad records")
    with traffic.flowing():
        first.process.kill()
        wait_until(lambda: traffic.version >= 8, 60, "some rounds")
        fleet.start("w3", **dead.overrides)
        slow = MENDED | {"HANDLER_SECONDS": "0.2"}
        with dead.start("--concurrency", "1", environment=slow) as killed:
            try:
                wait_until(lambda: any(line[2] == "redrive" for line in fleet.journal()), 60, "the first call")
            finally:
                killed.kill()
        if ":sqs:" not in dead.destination:  # a queue hides what the dead one had taken, for minutes
            done = dead.run("redrive", "--concurrency", "3", environment=MENDED)
            assert done.returncode == 0, done.stderr
    if ":sqs:" in dead.destination:
        left = dead.run("redrive", "--concurrency", "6", environment=MENDED)
        assert left.returncode == 1, left.stderr
        assert "(missing)" in left.stderr, "a letter that cannot be found is never passed over in silence"
        return
    fleet.wait_for(traffic.written)
    assert out_of_order(fleet.journal()) == 0
    after = dead.list()
    assert (after["parked_keys"], after["letters"]) == ([], 0)
