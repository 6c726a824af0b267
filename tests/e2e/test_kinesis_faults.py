"""The daemon on a Kinesis stream that does what AWS does now and then, and local servers do not: the fault proxy does.

Settings are the defaults, but for durations that would only make a test slow: those of the leases and, in a world that
is ``impatient``, how long the daemon waits until it believes what cannot be taken back.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from demo.local_aws import free_port
from tests.e2e.conftest import Aws
from tests.e2e.fleet import ROOT, Worker, closing, duplicates, out_of_order, wait_until
from tests.e2e.hurt import all_is_written, has_event, key_of, lease_rows
from tests.e2e.test_ends import readiness
from tests.e2e.test_kinesis import KinesisFleet, Stream
from tests.support.kinesis_changes import generate
from tests.support.kinesis_proxy import KinesisProxyThread, Mode
from tests.support.kinesis_servers import KinesisServer
from tests.support.threads import repeatedly

DAY = 24 * 3600.0
MODES: tuple[Mode, ...] = ("horizon", "empty", "refused")
HASHES = 2**128
KEY = "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555"
FOR_EVER = 10_000_000
# Seconds instead of minutes until a stream that is gone, or has another one in its place, is believed to be.
IMPATIENT = """
import consumer.aws.kinesis_name as name
import consumer.worker.fleet.first_reads as first_reads
import consumer.worker.fleet.shard_discovery as discovery
import consumer.worker.fleet.shard_listing as listing
import consumer.worker.fleet.stream_replacement as replacement
import consumer.worker.shard.processing as processing
name.SAME_STREAM_FOR = 0.0
first_reads.REFUSED_FOR = 2.0
discovery.SECOND_LOOK = listing.SECOND_LOOK = 0.5
listing.STREAM_LOOKS = 2
replacement.FOLLOW_INTERVAL, replacement.DRAIN_INTERVAL = 1.0, 0.3
replacement.FINISHED_FOR = replacement.GONE_FOR = 1.0
processing.MISSING_PAUSE = 0.3
"""


class Put(dict[tuple[str, int], tuple[str, str]]):
    """What was put, as the journal has it, and where it stands: shard and SequenceNumber."""

    def last(self) -> dict[str, str]:
        """The number of the last record of each shard."""
        found: dict[str, str] = defaultdict(lambda: "0")
        for shard_id, number in self.values():
            found[shard_id] = max(found[shard_id], number, key=int)
        return found


class World(KinesisFleet):
    """A fleet whose way to the stream is the proxy; the stream's owner has one of his own."""

    aws: Aws
    proxy: KinesisProxyThread
    server: str = ""
    shards: int = 2
    with_records: int = 2  # shards that keys are put into
    impatient: bool = False

    def make_stream(self) -> None:
        self.owner = Stream(self.server, self.stream, self.shards)
        self._versions = iter(range(1, 1000))

    def put(self, keys: int = 20) -> Put:
        """One more version of so many keys."""
        version, put = next(self._versions), Put()
        named = (f"key-{number}" for number in count())
        names = list(islice((name for name in named if self._shard_of(name) < self.with_records), keys))
        for name, (shard_id, number) in zip(names, self.owner.put_version(names, version), strict=True):
            put[name, version] = shard_id, number
        return put

    def _shard_of(self, key: str) -> int:
        return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16) * self.shards // HASHES

    def start(self, name: str, environment: dict[str, str] | None = None, **overrides: Any) -> Worker:
        if self.impatient:
            (self.folder / "sitecustomize.py").write_text(IMPATIENT)
            environment = {"PYTHONPATH": f"{self.folder}:{ROOT}", **(environment or {})}
        return super().start(name, environment, **overrides)

    def handle(self, put: Mapping[tuple[str, int], Any], seconds: float = 30) -> None:
        self.wait_for(set(put), seconds)

    def stop(self, worker: Worker) -> None:
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0

    def trim(self, upto: Mapping[str, str]) -> None:
        """The first three shards in different ways."""
        for mode, (shard_id, number) in zip(MODES, sorted(upto.items()), strict=True):
            self.proxy.call("trim", self.stream, shard_id, number, mode)

    def complete_at(self, moment: float) -> None:
        """All shards were seen complete then, and not since."""
        rows = lease_rows(self.aws, self)
        assert all("complete_at" in row for row in rows), rows
        for row in rows:
            self.aws.dynamodb.update_item(
                TableName=f"leases-{self.table}",
                Key=key_of(row),
                UpdateExpression="SET complete_at = :at",
                ExpressionAttributeValues={":at": {"N": str(moment)}},
            )

    def gaps(self) -> list[dict[str, Any]]:
        """The rows that say which records were never read."""
        rows = self.aws.dynamodb.scan(TableName=f"leases-{self.table}", ConsistentRead=True)["Items"]
        return [row for row in rows if row["sk"]["S"].startswith("gap#")]

    def made_anew(self) -> None:
        """The stream is deleted and made again under its name; it has the same ids of shards. That takes AWS a while,
        in which every reader comes to know that its iterator is nothing any more."""
        while not self.owner.make_again(self.shards):
            pass
        self.proxy.call("expire_iterators")
        self._versions = iter(range(next(self._versions) + 1000, 9999))


@pytest.fixture
def world(aws: Aws, kinesalite: KinesisServer, tmp_path: Path) -> Iterator[World]:
    world = World(aws.endpoint, tmp_path, f"k{free_port()}")
    with KinesisProxyThread(kinesalite.endpoint) as proxy, closing(world):
        world.aws, world.proxy, world.server = aws, proxy, kinesalite.endpoint
        world.kinesis, world.stream = proxy.endpoint, f"changes-{world.table}"
        yield world


def settled(worker: Worker, shards: int) -> bool:
    return len(worker.owned()) == shards and all_is_written(worker)


def metric(workers: list[Worker], name: str) -> float:
    return sum(worker.metric(f"stream_consumer_{name}") for worker in workers)


def test_trimmed_while_nobody_read(world: World) -> None:
    """Down for longer than records were kept: every shard halts and says so, one without any record so far, too; told
    to continue, they go on with the oldest record that is left. Nothing else is lost, and nothing comes twice. That the
    retention was raised meanwhile brings nothing back, and excuses nothing."""
    world.shards, world.with_records = 4, 3
    world.make_stream()
    first = world.start("first")
    before = world.put()
    world.handle(before)
    wait_until(lambda: settled(first, 4), 20, "it is written")
    wait_until(lambda: all("complete_at" in row for row in lease_rows(world.aws, world)), 20, "all were complete")
    world.stop(first)
    lost, left = world.put(), world.put()
    world.proxy.proxy.retention_hours[world.stream] = 168
    world.trim(lost.last())
    world.complete_at(time.time() - DAY - 60)
    halting = world.start("halting")
    wait_until(lambda: metric([halting], 'shards{state="halted"}') == 4, 30, "all shards halt")
    assert metric([halting], "gaps_total") == 4
    wait_until(lambda: "halted, because records were trimmed" in readiness(halting), 10, "readyz says so")
    why = "records were trimmed before they were read"
    wait_until(lambda: all(shard.get("note") == why for shard in halting.owned()), 10, "so does the status")
    told = {event["shard_id"]: event for event in halting.events() if event["event"] == "shard.gap"}
    assert {event["level"] for event in told.values()} == {"error"}
    assert set(told) == {row["shard_id"]["S"] for row in world.gaps()}
    for shard_id, number in before.last().items():
        assert told[shard_id]["after"] == number
    world.stop(halting)
    going_on = world.start("going-on", source={"on_gap": "continue"})
    world.handle(left)
    after = world.put()
    world.handle(after)
    assert world.handled() == set(before) | set(left) | set(after)
    assert duplicates(world.journal()) == 0
    assert len(world.gaps()) == 4, "one for each"
    assert metric([going_on], "gaps_total") == 0
    world.stop(going_on)


@pytest.mark.soak
def test_idle_and_stopped_for_a_while(world: World) -> None:
    """The last record of a shard is gone, but nothing was left to read behind it when the worker stopped: no gap, and
    what came since is handled once. Also on a shard without any record so far."""
    world.shards, world.with_records = 4, 3
    world.make_stream()
    first = world.start("first")
    before = world.put()
    world.handle(before)
    wait_until(lambda: settled(first, 4), 20, "it is written")
    wait_until(lambda: all("complete_at" in row for row in lease_rows(world.aws, world)), 20, "all were complete")
    world.stop(first)
    world.trim(before.last())
    world.complete_at(time.time() - DAY / 2)
    world.with_records = 4
    meanwhile = world.put()
    second = world.start("second")
    world.handle(meanwhile)
    after = world.put()
    world.handle(after)
    assert world.gaps() == []
    assert metric([second], "gaps_total") == 0
    assert duplicates(world.journal()) == 0
    world.stop(second)


def test_throttled_half_of_the_time(world: World) -> None:
    """Besides the quotas of the shards: everything is handled once, and the refusals are counted."""
    world.make_stream()
    world.proxy.proxy.throttles = True
    for operation in ("GetRecords", "GetShardIterator"):
        code = "ProvisionedThroughputExceededException"
        world.proxy.call("fault", operation, code=code, status=400, of_ten=5, times=FOR_EVER)
    worker = world.start("w")
    put = Put()
    for _ in range(10):
        put |= world.put()
    world.handle(put, 60)
    assert duplicates(world.journal()) == out_of_order(world.journal()) == 0
    assert metric([worker], 'throttles_total{operation="GetRecords"}') > 0
    assert metric([worker], 'get_records_total{outcome="throttled"}') > 0
    assert metric([worker], "gaps_total") == 0
    world.stop(worker)


def test_iterators_that_expire_all_the_time(world: World) -> None:
    """Ten times a second, and their life is one second: going on after the last record that was fetched, nothing is
    lost, and nothing is handled twice."""
    world.make_stream()
    world.proxy.proxy.iterator_life = 1.0
    worker = world.start("w")
    put = world.put()
    world.handle(put)
    with repeatedly(lambda _: world.proxy.call("expire_iterators"), 0.1):
        for _ in range(10):
            put |= world.put()
        world.handle(put, 60)
    assert metric([worker], 'get_records_total{outcome="expired"}') > 0
    assert duplicates(world.journal()) == out_of_order(world.journal()) == 0
    assert metric([worker], "gaps_total") == 0
    world.stop(worker)


@pytest.mark.soak
def test_a_key_that_is_disabled(world: World) -> None:
    """At the start: it ends with 77 and names the key. Later it waits, says why, and goes on when the key is back."""
    world.impatient = True
    world.make_stream()
    disabled = {"code": "KMSDisabledException", "status": 400, "message": f"{KEY} is disabled.", "times": FOR_EVER}
    world.proxy.call("fault", "GetRecords", **disabled)
    refused = world.start("refused")
    assert refused.wait() == 77
    last = refused.log.read_text().splitlines()[-1]
    assert f"kms:Decrypt is not possible with {KEY}" in last
    assert "enabled" in last
    world.proxy.call("clear_faults")
    worker = world.start("w")
    before = world.put()
    world.handle(before)
    world.proxy.call("fault", "GetRecords", **disabled)
    meanwhile = world.put()
    wait_until(lambda: KEY in readiness(worker), 20, "readyz names the key")
    wait_until(lambda: all(KEY in shard.get("note", "") for shard in worker.owned()), 10, "the status does, too")
    assert worker.process.poll() is None
    assert world.handled() == set(before)
    world.proxy.call("clear_faults")
    world.handle(meanwhile)
    wait_until(lambda: readiness(worker).startswith("ready"), 10, "it is ready again")
    assert duplicates(world.journal()) == 0
    assert world.gaps() == []
    world.stop(worker)


@pytest.mark.soak
def test_a_stream_that_is_made_anew_while_it_is_read(world: World) -> None:
    """Under its name, with the same ids of shards: what may have been left in the old one has its trace, and the new
    one is read whole, from rows of its own. A raised retention is seen, too."""
    world.impatient = True
    world.make_stream()
    worker = world.start("w", source={"on_gap": "continue"})
    before = world.put()
    world.handle(before)
    headroom = "retention_headroom_seconds"
    wait_until(lambda: 0 < metric([worker], headroom) <= 2 * DAY, 10, "a day of headroom for each shard")
    world.proxy.proxy.retention_hours[world.stream] = 168
    wait_until(lambda: metric([worker], headroom) > 13 * DAY, 10, "a week of headroom")
    wait_until(lambda: settled(worker, 2), 20, "it is written")
    world.made_anew()
    after = world.put()
    world.handle(after, 60)
    wait_until(lambda: has_event(worker, "stream.switched"), 10, "the log says so")
    more = world.put()
    world.handle(more)
    assert world.handled() == set(before) | set(after) | set(more)
    assert duplicates(world.journal()) == 0
    assert len({row["pk"]["S"] for row in lease_rows(world.aws, world)}) == 2
    assert {row["pk"]["S"] for row in world.gaps()} < {row["pk"]["S"] for row in lease_rows(world.aws, world)}
    assert not has_event(worker, "shard.worker_failed")
    world.stop(worker)


@pytest.mark.soak
def test_a_stream_that_was_made_anew_while_nobody_read(world: World) -> None:
    """With ``on_gap: halt`` nothing of the new one is read before a person has seen that the old one is gone."""
    world.impatient = True
    world.make_stream()
    first = world.start("first")
    before = world.put()
    world.handle(before)
    wait_until(lambda: settled(first, 2), 20, "it is written")
    world.stop(first)
    world.made_anew()
    new = world.put()
    halting = world.start("halting")
    wait_until(lambda: metric([halting], 'shards{state="halted"}') == 2, 30, "the shards of the old one halt")
    assert len(world.gaps()) == 2
    assert world.handled() == set(before)
    world.stop(halting)
    going_on = world.start("going-on", source={"on_gap": "continue"})
    world.handle(new, 60)
    more = world.put()
    world.handle(more)
    assert world.handled() == set(before) | set(new) | set(more)
    assert duplicates(world.journal()) == 0
    assert len(world.gaps()) == 2
    world.stop(going_on)


def test_one_table_of_three_on_the_stream(world: World) -> None:
    """Changes of the others are passed over, and so is what is no change: the checkpoint advances past them, and they
    do not come again."""
    world.make_stream()
    source = {"table": "orders"}
    first = world.start("first", source=source)
    logs = [
        generate(seed=seed, changes=60, items=10, table=name) for seed, name in enumerate(("orders", "users", "logs"))
    ]
    mixed = [change for changes in zip(*(log.puts for log in logs), strict=True) for change in changes]
    world.owner.put(mixed)
    others = world.put()
    wanted = {change.event_id for change in logs[0].changes}
    wait_until(lambda: {line[1] for line in world.journal()} == wanted, 30, "the table's changes are handled")
    wait_until(lambda: settled(first, 2), 20, "it is written")
    lows = {row["sk"]["S"].removeprefix("shard#"): row["low"]["S"] for row in lease_rows(world.aws, world)}
    for shard_id, number in others.last().items():
        assert lows[shard_id].startswith(number), "what is passed over is settled"
    world.stop(first)
    second = world.start("second", source=source)
    wait_until(lambda: settled(second, 2), 20, "it has nothing to do")
    later: dict[str, Any] = {"changes": 3, "items": 3, "start_us": 1_770_000_000_000_000}
    world.owner.put(generate(seed=9, table="users", **later).puts)
    last = generate(seed=10, table="orders", **later).puts
    world.owner.put(last)
    wanted |= {change.event_id for change in last}
    wait_until(lambda: {line[1] for line in world.journal()} == wanted, 30, "later ones are handled")
    assert len(world.journal()) == len(wanted)
    world.stop(second)
