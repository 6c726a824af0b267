"""``import-kcl`` on tables in memory: what is planned, what should be known of it, and what is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.cli.kcl_import.report import as_json, as_text
from consumer.cli.kcl_import.survey import survey
from consumer.cli.kcl_import.writing import write
from consumer.domain.errors import ResourceMissing
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_numbers import book_number
from consumer.domain.shards import ShardInfo
from consumer.ports.leases import Pinned, Registration
from consumer.ports.source import Page, StreamDescription
from tests.support.kcl_items import METRICS, lease_item
from tests.unit.cli.kcl_world import World, shown


@pytest.fixture
def world() -> World:
    return World()


async def test_rows_at_the_checkpoints(world: World) -> None:
    """And a start that drops nothing, wherever the configuration would begin."""
    low = world.number_in(world.left)
    assert await world.import_() == 3
    rows = world.rows()
    assert {i: (row.state, row.frontier.low) for i, row in rows.items()} == {
        world.left: ("open", low),
        world.parent: ("done", None),
        world.child: ("waiting", None),
    }
    assert all((row.owner, row.epoch) == (None, 0) for row in rows.values())
    assert rows[world.child].parents == (world.parent,)
    registration = await world.store().registration(world.stream.label)
    assert registration == Registration(world.stream.arn, None)
    assert await world.store().pinned() == Pinned(world.stream.arn.partition("/stream/")[0], world.stream.arn)


async def test_nothing_is_written_before_it_is_asked_for(world: World) -> None:
    found = await world.survey()
    assert found.refusals == ()
    assert (world.rows(), world.table.registrations, world.table.applications, world.table.streams) == ({}, {}, {}, {})


async def test_a_second_import_changes_nothing(world: World) -> None:
    await world.import_()
    before = world.rows()
    world.time.now += 3600
    found = await world.survey()
    assert (found.refusals, found.missing, len(found.there)) == ((), [], 3)
    assert await world.import_() == 0
    assert world.rows() == before


async def test_an_import_that_was_cut_off_is_completed(world: World) -> None:
    await world.import_()
    world.table.drop_lease("projector", world.stream.label, world.parent)
    assert await world.import_() == 1
    assert len(world.rows()) == 3


async def test_the_lease_table_is_created_if_it_may_be(world: World) -> None:
    world.table.exists = False
    with pytest.raises(ResourceMissing):
        await world.survey()
    request, reach = world.request(leases={"create_table": True}), world.reach()
    found = await survey(request, reach)
    assert not world.table.exists
    assert (found.refusals, await write(request, reach, found)) == ((), 3)
    assert world.table.exists


# --- what should be known ----------------------------------------------------------------------------


async def test_a_checkpoint_that_was_trimmed_is_told(world: World) -> None:
    world.stream.trim(world.left, world.number_in(world.left, 6))
    found = await world.survey()
    assert found.refusals == ()
    assert shown(found)[world.left].startswith("open 1")
    [note] = found.notes
    assert note.startswith(
        f"{world.left}: the record of the checkpoint is not there any more, and nothing says whether"
    )
    assert "source.on_gap (halt) decides" in note
    assert "--caught-up" in note


async def test_a_fleet_that_had_caught_up_has_lost_nothing(world: World) -> None:
    world.stream.trim(world.left, world.number_in(world.left, 6))
    found = await world.survey(caught_up=True)
    assert shown(found)[world.left] == "open"
    assert "as you say that nothing was left to process, the oldest record left is next" in found.notes[0]
    assert shown(await world.survey(caught_up=True, leases={"duration": "5s"}))[world.child] == "waiting"


async def test_new_shards_are_told(world: World) -> None:
    grandchild = world.stream.roll(world.child)
    assert (await world.survey()).plan.discovered == (grandchild,)


async def test_the_report_says_all_that_would_be_written(world: World) -> None:
    world.kcl.items += [METRICS, lease_item("1:payments:1:shardId-1", "5")]
    request = world.request()
    found = await world.survey()
    document = json.loads(as_json(request, found, None))
    assert document["written"] is None
    assert {row["shard_id"]: (row["checkpoint"], row["state"], row["low"]) for row in document["rows"]} == {
        world.left: (world.number_in(world.left), "open", world.number_in(world.left)),
        world.parent: ("SHARD_END", "done", None),
        world.child: ("TRIM_HORIZON", "waiting", None),
    }
    assert document["other_streams"] == {"1:payments:1": 1}
    assert document["other_rows"] == [{"key": "worker-1", "kind": "metrics of a worker"}]
    text = as_text(request, found)
    for part in (world.number_in(world.left), "SHARD_END", "TRIM_HORIZON", "left alone: 1 lease of 1:payments:1"):
        assert part in text
    assert "source.starting_position (latest) does not count" in text
    assert "left alone: worker-1 (metrics of a worker)" in text


async def test_what_another_program_has_stored_sends_nothing_to_the_terminal(world: World) -> None:
    world.kcl.items[0] = lease_item(world.left, world.number_in(world.left), owner="evil\x1b[31m\nline")
    assert "evil\\x1b[31m\\nline" in as_text(world.request(), await world.survey())


# --- Kinesis -----------------------------------------------------------------------------------------


class KinesisSource:
    """What the import asks of a Kinesis stream. Its shards have two parents after a merge."""

    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
    stream_id = f"{arn}@1700000000"
    label = "orders@1700000000"
    retention = 86_400.0

    def __init__(self, *shards: ShardInfo) -> None:
        self.shards = shards
        self.asked: list[str | None] = []

    async def describe(self) -> StreamDescription:
        now = 1_790_000_000.0
        return StreamDescription(self.arn, self.label, "", "ENABLED", "", KINESIS_FORMAT, now, stream_id=self.stream_id)

    async def latest_stream(self) -> str:
        return self.stream_id

    def of(self, stream_id: str) -> Any:
        assert stream_id == self.stream_id
        return self

    async def list_shards(self) -> list[ShardInfo]:
        return list(self.shards)

    async def iterator(self, shard_id: str, position: Any) -> str:
        self.asked.append(position.sequence_number)
        return "iterator"

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        return Page([], iterator, 0, behind=0.0)


async def test_a_kinesis_table_of_several_streams(world: World) -> None:
    """Numbers as the books have them, both parents of a merge, other streams left alone."""
    one, two, merged = (f"shardId-{n:012}" for n in range(3))
    world.source = KinesisSource(
        ShardInfo(one, (), "1000", "1999"),
        ShardInfo(two, (), "1000", "1999"),
        ShardInfo(merged, (one, two), "2000", None),
    )
    mine = "123456789012:orders:1700000000"
    world.kcl.items = [
        lease_item(f"{mine}:{merged}", "2500", sub=4, parents=(one, two)),
        lease_item(f"{mine}:{one}", "SHARD_END"),
        lease_item(f"123456789012:orders:1600000000:{one}", "77"),
    ]
    request, reach = world.request(), world.reach()
    found = await survey(request, reach)
    assert found.refusals == ()
    low = book_number("2500", 4)
    assert shown(found) == {merged: f"open {low}", one: "done", two: "done"}
    assert dict(found.own_leases.foreign) == {"123456789012:orders:1600000000": 1}
    assert world.source.asked == [low]
    await write(request, reach, found)
    held = world.table.leases["projector", KinesisSource.label]
    assert held[merged].row.frontier == FrontierSnapshot(low=low)
    assert held[merged].row.parents == (one, two)
    start = Registration(KinesisSource.stream_id, None)
    assert world.table.registrations["projector", KinesisSource.label] == start
    assert await world.store().pinned() == Pinned(KinesisSource.arn, KinesisSource.stream_id)
