"""``isolation: inline``: calls that end in one turn of the loop are heard of a few at a time, and nothing depends on
when an end was heard of."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from consumer.domain.outcome import Outcome
from consumer.handlers.calls_under_way import AT_ONCE
from consumer.handlers.inline import InlineHandler
from tests.integration.handlers.support import call, invoke
from tests.unit.handlers.test_inline import module_name, running

WIDTH = 10 * AT_ONCE
TOGETHER = """
import asyncio

go = asyncio.Event()

async def handler(records, context):
    await go.wait()
"""


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._next()

    def _next(self) -> None:
        self.count += 1
        self._handle = asyncio.get_running_loop().call_soon(self._next)

    def stop(self) -> None:
        self._handle.cancel()


async def let_go(tmp_path: Path) -> None:
    __import__(module_name(tmp_path)).go.set()


async def test_a_few_in_each_turn_in_the_order_of_their_ends(tmp_path: Path) -> None:
    async with running(tmp_path, TOGETHER) as handler:
        heard: list[tuple[int, int]] = []

        async def one(number: int) -> None:
            assert (await invoke(handler, call())).kind == "ok"
            heard.append((turns.count, number))

        calls = [asyncio.create_task(one(number)) for number in range(WIDTH)]
        await asyncio.sleep(0.01)
        turns = Turns()
        await let_go(tmp_path)
        await asyncio.gather(*calls)
        turns.stop()
        assert [number for _, number in heard] == list(range(WIDTH))
        by_turn = [sum(turn == each for turn, _ in heard) for each in range(heard[0][0], heard[-1][0] + 1)]
        assert by_turn == [AT_ONCE] * 10


async def test_slots_that_began_in_step_do_not_stay_in_step(tmp_path: Path) -> None:
    """What the few are for. Slots that call again at once, after work that takes a moment, all begin in one turn: after
    some calls their starts lie as far apart as the work takes, and not all within the time of a turn."""
    text = """
    import asyncio, time

    begun = []

    async def handler(records, context):
        begun.append(time.perf_counter())
        await asyncio.sleep(0.04)
    """
    work, width, rounds = 0.0005, 40, 6

    async with running(tmp_path, text) as handler:

        async def slot() -> None:
            for _ in range(rounds):
                await invoke(handler, call())
                began = time.perf_counter()
                while time.perf_counter() < began + work:
                    """What a batch costs."""

        await asyncio.gather(*(slot() for _ in range(width)))
        begun = __import__(module_name(tmp_path)).begun[-width:]
        assert begun[-1] - begun[0] > width * work / 2


@pytest.mark.parametrize("stops", [False, True])
async def test_an_end_that_waits_to_be_heard_of_is_in_time(tmp_path: Path, stops: bool) -> None:
    """The first caller blocks the loop until all deadlines are over. The others have ended before; also for a caller
    that is cancelled then nothing is cancelled, nor complained about."""
    async with running(tmp_path, TOGETHER, first_complaint=0.0) as handler:
        calls = [asyncio.create_task(invoke(handler, call(timeout=0.3))) for _ in range(WIDTH)]
        calls[0].add_done_callback(lambda _: time.sleep(0.5))
        await asyncio.sleep(0.01)
        await let_go(tmp_path)
        await calls[0]
        if stops:
            calls[-1].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        if stops:
            assert isinstance(outcomes.pop(), asyncio.CancelledError)
        for outcome in outcomes:
            assert isinstance(outcome, Outcome)
            assert outcome.kind == "ok"
            assert outcome.seconds < 0.3


async def test_a_plain_function_that_has_ended_in_time_was_in_time(tmp_path: Path) -> None:
    """The loop is held up meanwhile, until the deadline is over: its timer and the news of the end come in one turn."""
    async with running(tmp_path, "import time\ndef handler(records, context): time.sleep(0.02)") as handler:
        outcome = asyncio.create_task(invoke(handler, call(timeout=0.2)))
        await asyncio.sleep(0.001)
        time.sleep(0.5)
        assert (await outcome).kind == "ok"
        assert 0.02 <= (await outcome).seconds < 0.2


async def test_a_caller_that_is_gone_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, TOGETHER) as handler:
        calls = [asyncio.create_task(invoke(handler, call())) for _ in range(WIDTH)]
        await asyncio.sleep(0.01)
        await let_go(tmp_path)
        await asyncio.sleep(0)  # user code ends in this turn
        for gone in calls[1::2]:
            gone.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[1::2])
        assert [outcome.kind for outcome in outcomes[::2] if isinstance(outcome, Outcome)] == ["ok"] * (WIDTH // 2)
        assert (await invoke(handler, call())).kind == "ok"


async def test_a_call_by_itself_waits_for_no_turn(tmp_path: Path) -> None:
    """Whoever ends alone is heard of at once, also right after others."""
    async with running(tmp_path, "async def handler(records, context): pass") as handler:
        assert [await _turns_of_one(handler) for _ in range(3 * AT_ONCE)] == [2] * (3 * AT_ONCE)


async def _turns_of_one(handler: InlineHandler) -> int:
    turns = Turns()
    await invoke(handler, call())
    turns.stop()
    return turns.count - 1
