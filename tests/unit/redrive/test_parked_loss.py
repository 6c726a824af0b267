"""A letter of a parked key that is not there, or cannot be read: never passed over in silence."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from consumer.domain.parking import ParkedShard
from consumer.redrive.parked import LETTER_WITHIN
from tests.unit.redrive.parked_world import (
    DIGEST,
    LABEL,
    SHARD,
    Box,
    RedriveWorld,
    in_redrive_world,
    letter,
    redriven,
)


def test_a_missing_letter_leaves_the_key_parked_and_what_follows_untouched() -> None:
    result, world, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=False)
    assert (result.left, result.handled, free) == ("missing", 1, False)
    assert "letter 2 of 3" in result.detail
    assert world.handled == ["1"]
    assert world.claims.lost == []


def test_a_loss_that_is_accepted_leaves_a_trace_and_frees_the_key() -> None:
    with capture_logs() as logs:
        result, world, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=True)
    assert (result.left, free) == (None, True)
    assert world.handled == ["1", "3"]
    assert [(digest, ordinal) for digest, _, ordinal, _ in world.claims.lost] == [("digest", 2)]
    (entry,) = [entry for entry in logs if entry["event"] == "dead_letter.passed_over"]
    assert (entry["log_level"], entry["ordinal"]) == ("error", 2)


def test_a_letter_that_cannot_be_read_says_why() -> None:
    result, world, free = redriven(Box(letter(1), letter(2, "its payload is gone")), 2, accept_loss=False)
    assert (result.left, free) == ("unreadable", False)
    assert "its payload is gone" in result.detail
    assert world.handled == ["1"]


def test_of_two_copies_the_readable_one_counts() -> None:
    box = Box(letter(1, "damaged"), letter(1))
    result, world, free = redriven(box, 1, accept_loss=False)
    assert (result.left, free) == (None, True)
    assert world.handled == ["1"]
    assert box.letters == [], "all copies of it are removed"


def test_many_losses_cost_one_wait() -> None:
    """Each was counted before the wait began, so what was waited for once is not waited for again."""
    there = (1, 2, 300)

    async def body(world: RedriveWorld) -> None:
        await world.park(1000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await world.redrive(accept_loss=True).redrive(DIGEST)
        took = loop.time() - began
        assert (result.left, world.handled) == (None, list(map(str, there)))
        assert [ordinal for _, _, ordinal, _ in world.claims.lost] == [n for n in range(1, 1001) if n not in there]
        assert LETTER_WITHIN < took < LETTER_WITHIN + 15.0, "of which the writes take some"

    in_redrive_world(Box(*map(letter, there)), body)


def test_a_letter_that_is_counted_later_has_its_time_to_be_found() -> None:
    """While a queue shows it late."""

    async def body(world: RedriveWorld) -> None:
        await world.park(2)
        redriving = asyncio.create_task(world.redrive(accept_loss=True).redrive(DIGEST))
        await asyncio.sleep(LETTER_WITHIN - 1.0)
        counted = ParkedShard(DIGEST, LABEL, SHARD, f"park-{DIGEST}", first="1", letters=3, last="3")
        assert await world.store.count_letters(LABEL, world.lease, [counted]) == []
        await asyncio.sleep(LETTER_WITHIN - 2.0)
        world.box.letters.append(letter(3))
        assert (await redriving).left is None
        assert world.handled == ["1", "3"]
        assert [ordinal for _, _, ordinal, _ in world.claims.lost] == [2]

    in_redrive_world(Box(letter(1)), body)
