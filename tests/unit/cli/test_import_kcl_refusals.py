"""``import-kcl`` on tables in memory: what forbids it, and nobody guesses where a shard begins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer.cli.kcl_import.survey import survey
from consumer.cli.kcl_import.writing import write
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.ports.leases import Registration
from tests.support.kcl_items import LEADER, METRICS, lease_item
from tests.unit.cli.kcl_world import World, shown


@pytest.fixture
def world() -> World:
    return World()


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
