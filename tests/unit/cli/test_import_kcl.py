"""``import-kcl`` on tables in memory: what is planned, what forbids it, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.aws.kcl_items import reading_of
from consumer.cli.kcl_import.report import as_json, as_text
from consumer.cli.kcl_import.survey import Reach, Request, Survey, survey
from consumer.cli.kcl_import.writing import write
from consumer.domain.errors import MisconfiguredResource, ResourceMissing
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kcl_leases import KclReading
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_numbers import book_number
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.shards import ShardInfo
from consumer.ports.leases import Pinned, Registration
from consumer.ports.source import Page, StreamDescription
from consumer.settings.kinds import StartingPosition
from consumer.settings.load import settings_from
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from tests.support.kcl_items import LEADER, METRICS, Item, lease_item

CONFIG: dict[str, Any] = {
    "application": "projector",
    "source": {"table": "orders", "starting_position": "latest"},
    "handler": {"kind": "python", "target": "app:handler"},
}


class Time:
    """A clock that moves by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Kcl:
    """The KCL's table: what is in it, and what happens to it between two readings."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = list(items)
        self.meanwhile: Callable[[], None] = lambda: None
        self.reads = 0

    async def check(self) -> None: ...

    async def read(self) -> KclReading:
        self.reads += 1
        if self.reads > 1:
            self.meanwhile()
        return reading_of(self.items)


class World:
    """A stream of three shards, one of them finished with a child, and the KCL's table of it."""

    def __init__(self) -> None:
        self.time = Time()
        self.stream = MemoryStream(self.time, shards=2)
        self.numbers = {n: str(self.stream.put({"id": f"k{n}"})) for n in range(20)}
        self.left, self.parent = self.stream.open_shards()
        self.child = self.stream.roll(self.parent)
        self.time.now += 100
        self.later = {n: str(self.stream.put({"id": f"k{n}", "v": 2})) for n in range(20)}
        self.table = MemoryTable()
        self.kcl = Kcl(
            [
                lease_item(self.left, self.number_in(self.left), parents=()),
                lease_item(self.parent, "SHARD_END"),
                lease_item(self.child, "TRIM_HORIZON", parents=(self.parent,), owner=None),
            ]
        )
        self.source: Any = MemoryStreamSource(self.stream)
        self.failover_time = 10.0

    def number_in(self, shard_id: str, place: int = 3) -> str:
        return str(self.stream._shards[shard_id].numbers[place])

    def store(self) -> MemoryLeaseStore:
        return MemoryLeaseStore(self.table, "projector", self.time.wall)

    def request(self, start: StartingPosition | None = None, *, caught_up: bool = False, **sections: Any) -> Request:
        settings = settings_from(CONFIG | sections)
        return Request(settings, "kcl-table", self.failover_time, start, caught_up)

    def reach(self) -> Reach:
        return Reach(self.source, self.store(), self.kcl, self.time, sleep=self.time.sleep)

    async def survey(
        self, start: StartingPosition | None = None, *, caught_up: bool = False, **sections: Any
    ) -> Survey:
        return await survey(self.request(start, caught_up=caught_up, **sections), self.reach())

    async def import_(self, start: StartingPosition | None = None) -> int:
        """As with --yes."""
        request, reach = self.request(start), self.reach()
        found = await survey(request, reach)
        assert found.refusals == ()
        return await write(request, reach, found)

    def rows(self) -> dict[str, LeaseRow]:
        held = self.table.leases.get(("projector", self.stream.label), {})
        return {shard_id: lease.row for shard_id, lease in held.items()}


@pytest.fixture
def world() -> World:
    return World()


def shown(found: Survey) -> dict[str, str]:
    return {one.row.shard_id: f"{one.row.state} {one.row.frontier.low or ''}".strip() for one in found.plan.rows}


# --- what is written ---------------------------------------------------------------------------------


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


# --- what forbids it ---------------------------------------------------------------------------------


def bump(world: World) -> None:
    world.kcl.items[0] = world.kcl.items[0] | {"leaseCounter": {"N": "8"}}


async def test_the_old_fleet_lives(world: World) -> None:
    """It renews each lease three times in its failover time; a longer one is waited for as long as it takes."""
    world.failover_time = 30.0
    world.kcl.meanwhile = lambda: bump(world)
    started = world.time.now
    found = await world.survey()
    assert world.time.now - started == 30.0
    [refusal] = found.refusals
    assert refusal.startswith(
        "the old fleet lives: within 30 s 1 of 3 rows have moved, of the workers worker-1; stop it"
    )
    assert shown(found)[world.left].startswith("open"), "a dry run shows the plan all the same"


@pytest.mark.parametrize("change", ["appears", "vanishes", "owner only"])
async def test_any_move_is_a_sign_of_life(change: str, world: World) -> None:
    def move() -> None:
        if change == "appears":
            world.kcl.items.append(lease_item("shardId-new", "TRIM_HORIZON", owner="worker-9"))
        elif change == "vanishes":
            del world.kcl.items[1]
        else:
            world.kcl.items[2] = world.kcl.items[2] | {"leaseOwner": {"S": "worker-9"}}

    world.kcl.meanwhile = move
    assert "the old fleet lives" in (await world.survey()).refusals[0]


async def test_the_rows_of_the_second_reading_count(world: World) -> None:
    """Whatever was checkpointed while the fleet was being stopped."""
    newer = world.number_in(world.left, 5)

    def checkpoint() -> None:
        world.kcl.items[0] = lease_item(world.left, newer, counter=8)

    world.kcl.meanwhile = checkpoint
    assert shown(await world.survey())[world.left] == f"open {newer}"


async def test_a_damaged_row_stops_everything(world: World) -> None:
    world.kcl.items[0]["checkpoint"] = {"S": "49590..."}
    found = await world.survey()
    assert found.refusals == (f"{world.left}: checkpoint is not a sequence number: '49590...'",)


async def test_a_table_without_leases_is_an_error(world: World) -> None:
    world.kcl.items = [METRICS, LEADER]
    with pytest.raises(MisconfiguredResource, match="table kcl-table holds no leases: there is nothing to import"):
        await world.survey()


async def test_a_table_of_other_streams_only(world: World) -> None:
    world.kcl.items = [lease_item("1:payments:1:shardId-1", "5")]
    found = await world.survey()
    assert "table kcl-table has no lease of this stream, but of 1:payments:1" in found.refusals


async def session(world: World, name: str = "host/1/token/10s", **fields: Any) -> None:
    await world.store().open_session(SessionRow(name, **fields))


async def test_a_worker_of_our_own_is_running(world: World) -> None:
    def renew() -> None:
        held = world.table.sessions["projector"]["host/1/token/10s"]
        held.row = replace(held.row, counter=held.row.counter + 1)

    await session(world)
    world.kcl.meanwhile = renew
    [refusal] = (await world.survey()).refusals
    assert refusal == "workers of this application are running: host/1/token/10s; stop them, then import"


async def test_a_dead_worker_of_our_own_is_outwaited(world: World) -> None:
    """As long as it may rely on its session, and a tenth more."""
    await session(world, "host/1/token/60s")
    await session(world, "host/2/token/300s", fenced=True)
    started = world.time.now
    assert (await world.survey()).refusals == ()
    assert world.time.now - started == pytest.approx(66.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"frontier": FrontierSnapshot(low="99999999999999999999999")},
        {"owner": "host/1/token/10s", "epoch": 1},
        {"epoch": 3},
        {"state": "halted"},
        {"corrupt": "low is rubbish"},
    ],
)
async def test_rows_that_say_something_else_are_not_written_over(changes: dict[str, Any], world: World) -> None:
    await world.import_()
    world.table.edit("projector", world.stream.label, world.left, **changes)
    [refusal] = (await world.survey()).refusals
    assert refusal.startswith(f"the application has 1 lease rows that say something else ({world.left} is ")


async def test_a_row_of_a_shard_that_the_kcl_does_not_know_says_something_else_once_it_was_worked_on(
    world: World,
) -> None:
    """One that discovery has made, or an import before, says nothing."""
    await world.store().add_lease(world.stream.label, LeaseRow("shardId-x"))
    assert (await world.survey()).refusals == ()
    world.table.edit("projector", world.stream.label, "shardId-x", epoch=1)
    assert "shardId-x is waiting at no number" in (await world.survey()).refusals[0]


async def test_an_application_that_has_started_later_would_drop_records(world: World) -> None:
    await world.store().register(world.stream.label, Registration(world.stream.arn, 1_790_000_000.0))
    [refusal] = (await world.survey()).refusals
    assert "has started on this stream at a later position" in refusal


async def test_an_application_of_another_table_is_refused(world: World) -> None:
    await world.store().pin_application("arn:aws:dynamodb:us-east-1:000000000000:table/payments")
    with pytest.raises(MisconfiguredResource, match=r"reads \S+payments, not \S+orders"):
        await world.survey()


async def test_an_application_that_still_reads_an_older_stream_is_refused(world: World) -> None:
    store, old = world.store(), world.stream.arn.replace("2026-01-01", "2025-01-01")
    await store.pin_application(world.stream.arn.partition("/stream/")[0])
    await store.switch_stream(None, old)
    with pytest.raises(MisconfiguredResource, match="still reads "):
        await world.survey()


async def test_a_worker_that_starts_in_between_is_noticed(world: World) -> None:
    """It has made a row by itself, which says something else."""
    request, reach = world.request(), world.reach()
    found = await survey(request, reach)
    await world.store().add_lease(world.stream.label, LeaseRow(world.left))
    with pytest.raises(BaseExceptionGroup) as group:
        await write(request, reach, found)
    [error] = group.value.exceptions
    assert isinstance(error, MisconfiguredResource)
    assert f"a worker has made the row of {world.left} meanwhile" in str(error)


async def test_a_start_that_a_worker_has_registered_in_between_is_noticed(world: World) -> None:
    request, reach = world.request(), world.reach()
    found = await survey(request, reach)
    await world.store().register(world.stream.label, Registration(world.stream.arn, 5.0))
    with pytest.raises(MisconfiguredResource, match="a worker has registered another start meanwhile"):
        await write(request, reach, found)
    assert world.rows() == {}


# --- shards without a checkpoint ---------------------------------------------------------------------


def unchecked(world: World, checkpoint: str = "LATEST") -> None:
    world.kcl.items[0] = lease_item(world.left, checkpoint)


@pytest.mark.parametrize("checkpoint", ["LATEST", "AT_TIMESTAMP"])
async def test_nobody_guesses_where_a_shard_without_a_checkpoint_begins(checkpoint: str, world: World) -> None:
    unchecked(world, checkpoint)
    [refusal] = (await world.survey()).refusals
    assert refusal.startswith(f"{world.left}: at LATEST or AT_TIMESTAMP, and never checkpointed")
    assert all(word in refusal for word in ("--without-checkpoint", "trim_horizon", "latest", "time"))


async def test_from_its_beginning(world: World) -> None:
    unchecked(world)
    found = await world.survey("trim_horizon")
    assert (found.refusals, shown(found)[world.left]) == ((), "waiting")


async def test_from_a_time_on(world: World) -> None:
    """Everything older is settled: the last record before it is the number."""
    unchecked(world)
    older = [number for number in map(int, world.numbers.values()) if number in numbers_of(world, world.left)]
    moment = datetime.fromtimestamp(world.time.wall() - 50, UTC)
    found = await world.survey(moment)
    assert (found.refusals, shown(found)[world.left]) == ((), f"open {max(older)}")


def numbers_of(world: World, shard_id: str) -> list[int]:
    return world.stream._shards[shard_id].numbers


async def test_from_now_on(world: World) -> None:
    """Pages may be empty in the middle of a shard; what is not seen for that is handled once more."""
    unchecked(world)
    world.time.now += 1
    world.stream.empty_pages(world.left, 2)
    found = await world.survey("latest")
    assert shown(found)[world.left] == f"open {numbers_of(world, world.left)[-1]}"


async def test_before_its_first_record(world: World) -> None:
    """Reading goes on at that one, so that it is noticed if it is trimmed before."""
    unchecked(world)
    found = await world.survey(datetime.fromtimestamp(world.time.wall() - 5000, UTC))
    rows = {one.row.shard_id: one.row for one in found.plan.rows}
    assert rows[world.left].state == "open"
    assert rows[world.left].frontier == FrontierSnapshot(first=world.number_in(world.left, 0))


async def test_a_shard_that_has_ended_before_is_done(world: World) -> None:
    world.kcl.items[1] = lease_item(world.parent, "AT_TIMESTAMP")
    found = await world.survey(datetime.fromtimestamp(world.time.wall() - 50, UTC))
    assert (found.refusals, shown(found)[world.parent]) == ((), "done")


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
