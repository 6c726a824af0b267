"""The whole promise of on_failure.order: park_key, at once: poison, crashes, a split, a hand-over, and the way back.

5 % of 500 keys have a bad record in the middle of their versions. Two workers are killed, a shard is split, another one
rolls over, workers join. Then the handler is mended and deployed, and one redrive under live traffic ends with
handled = produced, in order per key, and no key parked.
"""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import Dead, made, wait_for_letters
from tests.e2e.fleet import Fleet, out_of_order, wait_until
from tests.e2e.test_fleet import share_evenly, stale_starts
from tests.support.reshard_proxy import ProxyThread
from tests.support.threads import repeatedly

MENDED = {"MENDED": "yes"}
KEYS, BAD = 500, 25  # the first 25 of 500 keys: 5 %
VERSIONS = 9  # before the handler is mended
SHARDS = 4
pytestmark = [pytest.mark.behind_proxy(shards=SHARDS), pytest.mark.timeout(600)]


def key_name(number: int) -> str:
    return f"k{number:04d}"


def poisoned_at(number: int) -> int | None:
    """The version that the handler cannot take: some come before the first crash, some after the split."""
    return 3 + number % 5 if number < BAD else None


class Load:
    """Writes versions of all keys, each after the one before it."""

    def __init__(self, aws: Aws, table: str) -> None:
        self._aws, self._table = aws, table
        self.version = 0
        self.produced: set[tuple[str, int]] = set()

    def write(self, keys: int = KEYS) -> None:
        """The next version of the first so many keys."""
        self.version += 1
        numbers = range(keys)
        for start in range(0, keys, 25):
            puts = [{"PutRequest": {"Item": self._item(number)}} for number in numbers[start : start + 25]]
            self._aws.dynamodb.batch_write_item(RequestItems={self._table: puts})
        self.produced |= {(key_name(number), self.version) for number in numbers}

    def _item(self, number: int) -> dict[str, Any]:
        item: dict[str, Any] = {"pk": {"S": key_name(number)}, "version": {"N": str(self.version)}}
        if poisoned_at(number) == self.version:
            item["poison"] = {"BOOL": True}
        return item

    def flowing(self, keys: int) -> AbstractContextManager[None]:
        """A new version of the first so many keys every two seconds."""
        return repeatedly(lambda _: self.write(keys), 2.0)


@pytest.fixture(params=["s3", pytest.param("sqs", marks=pytest.mark.soak)])
def dead(request: pytest.FixtureRequest, aws: Aws, fleet: Fleet) -> Dead:
    found = made(request.param, aws, fleet, order="park_key")
    found.overrides["leases"] = {"duration": "8s"}  # all of this on two cores: who is slow is not dead
    found.overrides["aws"]["endpoints"]["dynamodb_streams"] = fleet.endpoint  # the proxy, which splits
    return found


def hurt(fleet: Fleet, dead: Dead, load: Load, proxy: ProxyThread) -> None:
    """All versions but those of the way back are written while workers die, join, and shards come to an end."""
    settings: dict[str, Any] = {**dead.overrides, "batch": {"batch_size": 20}}
    first, second = (fleet.start(name, **settings) for name in ("w1", "w2"))
    share_evenly(fleet, SHARDS)
    for version in range(1, VERSIONS + 1):
        load.write()
        if version == 4:  # the first keys are being parked
            first.send(signal.SIGKILL)
            third = fleet.start("w3", **settings)  # takes over, or is handed, a part of the shards
        if version == 5:
            open_shards = [shard["shard_id"] for shard in proxy.call("shards") if shard["open"]]
            proxy.call("split", open_shards[0])
            proxy.call("roll", open_shards[1])
        if version == 6:
            wait_until(third.owned, 40, "the third worker owns a shard")
        if version == 7:
            second.send(signal.SIGKILL)
            fleet.start("w4", **settings)


def test_poison_crashes_and_splits_end_with_every_record_handled_in_order(
    aws: Aws, fleet: Fleet, dead: Dead, proxy: ProxyThread
) -> None:
    load = Load(aws, fleet.table)
    hurt(fleet, dead, load, proxy)

    parked = {key_name(n): at for n in range(BAD) if (at := poisoned_at(n)) is not None}
    wanted = {(key, version) for key, version in load.produced if version < parked.get(key, VERSIONS + 1)}
    fleet.wait_for(wanted, 120)
    unhandled = {key: list(range(at, VERSIONS + 1)) for key, at in parked.items()}
    wait_for_letters(dead, unhandled)
    assert fleet.handled() == wanted, "nothing from the bad record on was handled"
    assert out_of_order(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0
    assert len(dead.list()["parked_keys"]) == BAD

    for worker in [worker for worker in fleet.workers if worker.process.poll() is None]:  # the deploy of the mended one
        fleet.start(f"mended-{worker.name}", MENDED, **dead.overrides)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    with load.flowing(2 * BAD):
        done = dead.run("redrive", "--concurrency", "4", environment=MENDED)
        if done.returncode == 1:
            left = [line for line in done.stderr.splitlines() if line.startswith("left")]
            assert left, done.stderr
            assert all("(busy)" in line for line in left), done.stderr
            done = dead.run("redrive", "--concurrency", "4", environment=MENDED)
    assert done.returncode == 0, done.stderr
    fleet.wait_for(load.produced, 120)
    assert fleet.handled() == load.produced
    assert out_of_order(fleet.journal()) == 0
    after = dead.list()
    assert (after["parked_keys"], after["letters"]) == ([], 0)
