"""What the shards of a parked key are while it is freed: many of them, and some that nobody works on."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.letter_selection import Selection
from consumer.domain.parking import ParkedKey
from consumer.ports.parking import MOST_DROPPED, MOST_FREED
from consumer.redrive.parked_keys import ParkedKeys, selected_keys, would_be
from tests.unit.redrive.parked_world import (
    DIGEST,
    LABEL,
    SHARD,
    Box,
    NoHandling,
    RedriveWorld,
    in_redrive_world,
    letter,
)


async def with_many_shards(world: RedriveWorld, count: int, open_ones: int) -> None:
    """A key with rows of so many shards beside its first one, the latest ``open_ones`` of them still being read."""
    await world.park(1)
    await world.store.save(LABEL, replace(world.lease, state="done"))
    for number in range(count):
        state = "open" if number >= count - open_ones else "done"
        await world.join(f"shard-{number:03d}", 10 + number, 0, state=state)


def test_a_key_with_letters_from_more_shards_than_a_transaction_takes_is_freed() -> None:
    """Of all but a few nothing comes any more: two weeks and longer on S3."""

    async def body(world: RedriveWorld) -> None:
        await with_many_shards(world, MOST_FREED + MOST_DROPPED + 10, open_ones=3)
        result = await world.redrive().redrive(DIGEST)
        assert (result.left, result.handled) == (None, 1)
        assert await world.store.parked() == []

    in_redrive_world(Box(letter(1)), body)


def test_a_key_with_letters_from_too_many_shards_that_are_read_stays_parked_and_says_so() -> None:
    async def body(world: RedriveWorld) -> None:
        await with_many_shards(world, MOST_FREED + 5, open_ones=MOST_FREED + 1)
        result = await world.redrive().redrive(DIGEST)
        assert result.left == "too_many_shards"
        assert f"{MOST_FREED + 1} shards have letters of it" in result.detail
        assert len((await world.store.parked_key(DIGEST)).shards) == MOST_FREED + 1, "of the others nothing is left"

    in_redrive_world(Box(letter(1)), body)


def test_a_shard_that_joins_right_before_the_closing_and_is_one_too_many_leaves_the_key_to_the_next_redrive() -> None:
    async def body(world: RedriveWorld) -> None:
        await with_many_shards(world, MOST_FREED - 1, open_ones=3)
        begin = world.store.begin_closing

        async def late(key: ParkedKey, nonce: str) -> ParkedKey | None:
            if "late" not in {row.shard_id for row in (await world.store.parked_key(DIGEST)).shards}:
                await world.join("late", 500, 0, state="open")
            return await begin(key, nonce)

        world.store.begin_closing = late  # type: ignore[method-assign]  # at a moment that nothing else can choose
        result = await world.redrive().redrive(DIGEST)
        assert result.left == "too_many_shards"
        found = (await world.store.parked_key(DIGEST)).key
        assert found is not None
        assert (found.state, found.redriver) == ("parked", None)
        assert (await world.redrive().redrive(DIGEST)).left is None
        assert await world.store.parked() == []

    in_redrive_world(Box(letter(1)), body)


@pytest.mark.parametrize(("why", "advice"), [("halted", "on_gap: continue"), ("quarantined", "put the row right")])
def test_a_shard_that_a_person_has_to_look_after_is_named_at_once_and_its_key_stays_parked(
    why: str, advice: str
) -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(1)
        renewed = asyncio.create_task(world.live())
        if why == "halted":
            await world.store.save(LABEL, replace(world.lease, state="halted", note="trimmed before it was read"))
        else:
            world.table.edit("app", LABEL, SHARD, corrupt="low is not a number")
        began = asyncio.get_running_loop().time()
        result = await world.redrive().redrive(DIGEST)
        assert (result.left, result.handled) == (why, 1)
        assert SHARD in result.detail
        assert advice in result.detail
        assert asyncio.get_running_loop().time() - began < 5.0
        found = (await world.store.parked_key(DIGEST)).key
        assert found is not None
        assert (found.state, found.redriver) == ("parked", None), "any redrive may go on"
        renewed.cancel()

    in_redrive_world(Box(letter(1)), body)


def test_an_owner_that_lives_and_does_not_answer_is_waited_for_and_named() -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(1)
        renewed = asyncio.create_task(world.live())
        result = await world.redrive().redrive(DIGEST)
        assert (result.left, result.handled) == ("busy", 1)
        assert f"the owners of {SHARD} have not answered" in result.detail
        renewed.cancel()

    in_redrive_world(Box(letter(1)), body)


@pytest.mark.parametrize("of_key", [True, False], ids=["key", "shard"])
def test_a_key_with_a_damaged_row_is_left_with_the_row_and_others_are_freed(of_key: bool) -> None:
    """It must not be taken for free, nor may letters be handled that come after those that nobody can count."""

    async def body(world: RedriveWorld) -> None:
        await world.park(1)
        await world.join("child", 5, 1, state="done")
        await world.park(1, "other")
        await world.store.release(LABEL, world.lease)
        place = ("", "") if of_key else (LABEL, SHARD)
        world.table.parked_damage["app", DIGEST, *place] = "the row of it is damaged: put it right"
        work = ParkedKeys(world.redrive(), NoHandling(), asyncio.Event())
        keys = selected_keys(await world.store.parked(), Selection(), None)
        assert {one.digest: would_be(one).left for one in keys} == {DIGEST: "damaged", "other": None}
        summary = await work.run(keys, 2, lambda _: None)
        results = {one.digest: one for one in summary.results}
        assert (results[DIGEST].left, results[DIGEST].handled) == ("damaged", 0)
        assert "put it right" in results[DIGEST].detail
        assert results["other"].left is None
        assert await world.is_free("other")
        assert ("app", DIGEST) in world.table.parked

    in_redrive_world(Box(letter(1), letter(1, digest="other")), body)


def test_a_row_that_is_damaged_meanwhile_frees_nothing() -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(20)
        redriving = asyncio.create_task(world.redrive().redrive(DIGEST))
        await asyncio.sleep(0.3)
        world.table.parked_damage["app", DIGEST, "", ""] = "the row of it is damaged"
        result = await redriving
        assert result.left in ("damaged", "lost"), "and never free"
        assert ("app", DIGEST) in world.table.parked

    in_redrive_world(Box(*(letter(ordinal) for ordinal in range(1, 21))), body)
