"""The place for dead letters is gone for a while: parked keys wait for it, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import Dead, letters_in, made, wait_for_letters
from tests.e2e.fleet import Fleet, Worker, out_of_order, wait_until
from tests.e2e.hurt import has_event
from tests.support.reshard_proxy import ProxyThread

MENDED = {"MENDED": "yes"}
BAD, GOOD = 5, 40  # keys
ENOUGH_REFUSALS = 10
FOR_GOOD = 1_000_000  # requests


@pytest.fixture
def door(aws: Aws) -> Iterator[ProxyThread]:
    """The way of the workers to the place for dead letters, and to nothing else."""
    with ProxyThread(aws.endpoint) as proxy:
        yield proxy


@pytest.fixture(params=["s3", pytest.param("sqs", marks=pytest.mark.soak)])
def dead(request: pytest.FixtureRequest, aws: Aws, fleet: Fleet) -> Dead:
    return made(request.param, aws, fleet, order="park_key")


def through(door: ProxyThread, dead: Dead) -> dict[str, object]:
    """Settings of a worker that reaches its dead letters through this door."""
    endpoints = {**dead.overrides["aws"]["endpoints"], "s3": door.endpoint, "sqs": door.endpoint}
    return {**dead.overrides, "aws": {**dead.overrides["aws"], "endpoints": endpoints}}


def refusals(worker: Worker) -> float:
    return worker.metric("stream_consumer_dead_letters_refused_total")


def test_other_keys_go_on_and_parked_ones_get_there_when_it_is_back(
    aws: Aws, fleet: Fleet, dead: Dead, door: ProxyThread
) -> None:
    """Every connection is cut; the worker that parked the keys is killed meanwhile. Other keys never notice, no later
    record of a parked key is handled, and all of them are letters in order when the place answers again."""
    first = fleet.start("w1", **through(door, dead))
    wait_until(first.owned, 30, "the first one owns the shard")
    second = fleet.start("w2", **through(door, dead))
    wait_until(lambda: has_event(second, "daemon.started"), 30, "the second one is ready to take over")
    door.call("fault", "*", kind="lose_request", times=FOR_GOOD)
    dead.poison(range(BAD), range(1, 3))
    good = aws.write(fleet.table, GOOD, range(1, 4))
    fleet.wait_for(good)
    wait_until(lambda: first.metric("stream_consumer_parked_keys") == BAD, 60, "the keys are parked all the same")
    wait_until(lambda: refusals(first) > 0, 60, "the place refuses")
    first.process.kill()

    dead.poison(range(BAD), range(3, 5))
    good |= aws.write(fleet.table, GOOD, range(4, 7))
    fleet.wait_for(good)
    wait_until(lambda: refusals(second) >= ENOUGH_REFUSALS, 60, "it is asked again and again")
    good |= aws.write(fleet.table, GOOD, range(7, 9))
    fleet.wait_for(good)
    assert second.metric("stream_consumer_dead_letters_waiting") > 0
    assert second.metric("stream_consumer_dead_letters_total") == 0
    assert letters_in(dead) == []
    assert fleet.handled() == good, "no record of a parked key"

    door.call("clear_faults")
    in_order = {f"bad{n:03d}": [1, 2, 3, 4] for n in range(BAD)}
    wait_for_letters(dead, in_order)
    done = dead.run("redrive", environment=MENDED)
    assert done.returncode == 0, done.stderr
    bad = {(key, version) for key, versions in in_order.items() for version in versions}
    assert fleet.handled() == good | bad
    assert out_of_order(fleet.journal()) == 0
    after = dead.list()
    assert (after["parked_keys"], after["letters"]) == ([], 0)
