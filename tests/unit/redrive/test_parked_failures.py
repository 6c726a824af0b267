"""Services that fail while parked keys are brought back: what else is under way goes on, and nothing waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import DependencyError, PermissionDenied, Throttled
from consumer.domain.parking import Parked
from consumer.redrive.parked import KeyResult
from consumer.redrive.parked_keys import MOST_FAILURES, ParkedKeys, ParkedSummary
from consumer.redrive.session import RedriveFenced
from tests.unit.redrive.parked_world import DIGEST, Box, NoHandling, RedriveWorld, in_redrive_world, letter

UNANSWERED = DependencyError("GetObject", "InternalError", "try again")


class EndingError(Exception):
    """No error of ours."""


async def redriven(world: RedriveWorld, keys: list[Parked]) -> ParkedSummary:
    return await ParkedKeys(world.redrive(), NoHandling(), asyncio.Event()).run(keys, 2, lambda _: None)


@pytest.mark.parametrize("failures", [[UNANSWERED], [Throttled("GetObject", "SlowDown")] * (MOST_FAILURES - 1)])
def test_a_call_that_fails_costs_a_round_and_neither_the_redrive_nor_another_key(failures: list[Exception]) -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(3)
        await world.park(3, "other")
        world.box.failures = list(failures)
        loop = asyncio.get_running_loop()
        began = loop.time()
        summary = await redriven(world, await world.store.parked())
        assert [one.left for one in summary.results] == [None, None]
        assert await world.is_free()
        assert await world.is_free("other")
        assert sorted(world.handled) == ["1", "1", "2", "2", "3", "3"], "each once: nothing was cut off"
        assert loop.time() - began < 60.0

        assert world.box.letters == [], "also those whose removal has failed"

    in_redrive_world(Box(*(letter(ordinal, digest=key) for key in (DIGEST, "other") for ordinal in (1, 2, 3))), body)


def test_letters_that_a_redrive_has_handled_and_not_removed_are_removed_by_the_next() -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(25)
        world.box.failures = [EndingError() for _ in range(10)]  # of the removals: as if the process had ended there
        world.box.fail_removing = True
        with pytest.raises(ExceptionGroup):
            await world.redrive().redrive(DIGEST)
        world.box.fail_removing, world.box.failures = False, []
        assert (await world.redrive().redrive(DIGEST)).left is None
        assert world.handled == [str(number) for number in range(1, 26)]
        assert world.box.letters == []

    in_redrive_world(Box(*(letter(ordinal) for ordinal in range(1, 26))), body)


@pytest.mark.parametrize("error", [PermissionDenied("s3:GetObject", "s3://letters"), UNANSWERED])
def test_what_does_not_pass_ends_the_redrive_with_its_reason(error: Exception) -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(3)
        world.box.failures = [error] * 100
        with pytest.raises(type(error)):
            await redriven(world, await world.store.parked())
        assert not await world.is_free()

    in_redrive_world(Box(letter(1), letter(2), letter(3)), body)


def test_a_session_that_was_fenced_is_no_failure_that_passes() -> None:
    async def body(world: RedriveWorld) -> None:
        await world.park(3)
        loop = asyncio.get_running_loop()
        (session,) = [one for one in await world.store.sessions() if one.incarnation == world.session.incarnation]
        assert await world.store.fence_session(session.incarnation, session.counter)
        await asyncio.sleep(15.0)
        began = loop.time()
        with pytest.raises(RedriveFenced):
            await redriven(world, await world.store.parked())
        assert loop.time() - began < 1.0

    in_redrive_world(Box(letter(1), letter(2), letter(3)), body)


def test_a_key_that_is_refused_its_freedom_is_left_with_a_reason_and_not_asked_for_for_ever() -> None:
    """Rows that nobody expects, by hand or of a later version."""

    async def refused(*_: object) -> bool:
        await asyncio.sleep(0)
        return False

    results: list[KeyResult] = []

    async def body(world: RedriveWorld) -> None:
        await world.park(1)
        world.store.free_parked = refused  # type: ignore[method-assign]  # what only a damaged table does
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(3600.0):
            results.append(await world.redrive().redrive(DIGEST))
        assert loop.time() - began < 60.0

    in_redrive_world(Box(letter(1)), body)
    assert results[0].left == "busy"
    assert "rows" in results[0].detail
