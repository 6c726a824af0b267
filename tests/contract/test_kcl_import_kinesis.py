"""An import for an application of a Kinesis stream, on real servers: where shards go on, and what was trimmed."""

from __future__ import annotations

import asyncio
import datetime as dt
import time

import pytest

from consumer.aws.kcl_items import reading_of
from consumer.cli.kcl_import.survey import Reach, Request, survey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kinesis_numbers import book_number
from consumer.settings.load import settings_from
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_table import MemoryTable
from consumer.worker.clock import SystemClock
from tests.contract.test_kinesis_source import source_of
from tests.support.kcl_items import lease_item


class Kcl:
    def __init__(self, *items):
        self.items = items

    async def check(self): ...

    async def read(self):
        return reading_of(self.items)


async def surveyed(stream, *items, start=None, caught_up=False):
    settings = settings_from(
        {
            "application": "projector",
            "source": {"kind": "kinesis", "stream": stream.name},
            "handler": {"kind": "python", "target": "app:handler"},
        }
    )
    store = MemoryLeaseStore(MemoryTable(), "projector", time.time)
    reach = Reach(source_of(stream), store, Kcl(*items), SystemClock(), sleep=lambda seconds: asyncio.sleep(0))
    found = await survey(Request(settings, "kcl", 1.0, start, caught_up), reach)
    assert found.refusals == ()
    return found


def frontiers(found):
    return {one.row.shard_id: (one.row.state, one.row.frontier) for one in found.plan.rows}


@pytest.fixture
async def stream(kinesis_streams):
    return await kinesis_streams(1)


async def test_a_checkpoint_and_the_shards_around_it(stream):
    """A parent without lease, a checkpoint inside of an aggregate, children that the KCL has not leased."""
    [parent] = [shard["ShardId"] for shard in await stream.shards()]
    await stream.put(b"a")
    left, right = await stream.split(parent)
    [placed] = await stream.put(b"b", into=left)
    children = await stream.split(right)
    found = await surveyed(stream, lease_item(left, placed.sequence_number, sub=3), lease_item(right, "SHARD_END"))
    assert frontiers(found) == {
        left: ("open", FrontierSnapshot(low=book_number(placed.sequence_number, 3))),
        right: ("done", FrontierSnapshot()),
        parent: ("done", FrontierSnapshot()),
    }
    assert set(found.plan.discovered) == set(children)
    assert found.notes == ()


async def test_a_checkpoint_whose_record_is_not_there_any_more(stream):
    """The service never says so: it is looked for. Without it nothing tells whether later ones were lost."""
    await stream.put(b"a")
    [placed] = await stream.put(b"b")
    gone = str(int(placed.sequence_number) - 1)
    item = lease_item(placed.shard_id, gone)
    found = await surveyed(stream, item)
    assert frontiers(found) == {placed.shard_id: ("open", FrontierSnapshot(low=book_number(gone)))}
    [note] = found.notes
    assert note.startswith(f"{placed.shard_id}: the record of the checkpoint is not there any more, and nothing says")
    found = await surveyed(stream, item, caught_up=True)
    assert frontiers(found) == {placed.shard_id: ("open", FrontierSnapshot())}


async def test_the_newest_record_is_there(stream):
    *_, placed = await stream.put(b"a", b"b")
    found = await surveyed(stream, lease_item(placed.shard_id, placed.sequence_number))
    assert found.notes == ()


async def test_beginnings_without_a_checkpoint(stream):
    """Everything older than the decision is behind it: by the record before, or by the first one that counts."""
    first, *_, last = await stream.put(*(b"%d" % number for number in range(5)))
    item = lease_item(first.shard_id, "LATEST")
    past, future = (dt.datetime.fromtimestamp(time.time() + seconds, dt.UTC) for seconds in (-3600, 3600))
    for start, frontier in (
        ("trim_horizon", FrontierSnapshot()),
        (past, FrontierSnapshot(first=book_number(first.sequence_number))),
        (future, FrontierSnapshot(low=book_number(last.sequence_number))),
    ):
        found = await surveyed(stream, item, start=start)
        assert frontiers(found)[first.shard_id][1] == frontier, start


async def test_between_two_records(stream):
    [old] = await stream.put(b"old")
    moment = dt.datetime.fromtimestamp(time.time() + 0.01, dt.UTC)
    while time.time() <= moment.timestamp():
        await asyncio.sleep(0.001)
    await stream.put(b"new")
    found = await surveyed(stream, lease_item(old.shard_id, "AT_TIMESTAMP"), start=moment)
    assert frontiers(found) == {old.shard_id: ("open", FrontierSnapshot(low=book_number(old.sequence_number)))}


async def test_a_shard_that_has_ended_before(stream):
    [placed] = await stream.put(b"old")
    await stream.split(placed.shard_id)
    future = dt.datetime.fromtimestamp(time.time() + 3600, dt.UTC)
    found = await surveyed(stream, lease_item(placed.shard_id, "LATEST"), start=future)
    assert frontiers(found) == {placed.shard_id: ("done", FrontierSnapshot())}
