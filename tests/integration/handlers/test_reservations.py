"""What a call needs is reserved before it starts, and user code never starts when it has become too late."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from consumer.domain.outcome import TOO_LATE
from consumer.handlers.frame_channel import FrameChannel
from consumer.handlers.runtime.wire import instant
from tests.integration.handlers.http_servers import serving, started
from tests.integration.handlers.support import alive, call, eventually, invoke, running, workers, write_module

COLD = """
import os, pathlib, time

FOLDER = pathlib.Path(__file__).parent
while (FOLDER / "cold").exists():  # a cold import
    time.sleep(0.02)
(FOLDER / f"imported {os.getpid()}").touch()

def handler(event, context):
    (FOLDER / f"called {context.aws_request_id}").touch()
    if context.aws_request_id == "crash":
        (FOLDER / "cold").touch()
        os._exit(1)
"""


async def test_a_reservation_waits_for_the_import_and_its_call_for_nothing(tmp_path: Path) -> None:
    async with running(write_module(tmp_path, COLD)) as handler:
        assert (await invoke(handler, call(request_id="crash"))).kind == "failed"
        reserving = asyncio.create_task(handler.reserve())
        await eventually(lambda: bool(workers()))
        assert not reserving.done()
        (tmp_path / "cold").unlink()
        reservation = await reserving
        (pid,) = workers()
        assert (tmp_path / f"imported {pid}").exists()
        calling = asyncio.create_task(reservation.run(call(request_id="good")))
        await asyncio.sleep(0)  # one step
        deadline = time.monotonic() + 5
        while not (tmp_path / "called good").exists():  # and no other: this loop is blocked
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (await calling).kind == "ok"
        reservation.release()


async def test_a_reservation_that_is_released_or_cancelled_leaves_its_process_to_others(tmp_path: Path) -> None:
    async with running(write_module(tmp_path, COLD)) as handler:
        before = workers()
        for _ in range(3):
            unused = await handler.reserve()
            waiting = asyncio.create_task(handler.reserve())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            given = asyncio.create_task(handler.reserve())
            await asyncio.sleep(0)
            unused.release()  # it is given to the one that waits,
            given.cancel()  # which goes away in the same moment
            with pytest.raises(asyncio.CancelledError):
                await given
            unused.release()
        assert (await invoke(handler, call())).kind == "ok"
        assert workers() == before


async def test_a_reserved_process_that_dies_spends_no_retry(tmp_path: Path) -> None:
    async with running(write_module(tmp_path, COLD)) as handler:
        reservation = await handler.reserve()
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: bool((now := workers()) and pid not in now))  # two looks may see one die in between
        assert (await reservation.run(call(request_id="lost"))).kind == "not_invoked"
        reservation.release()
        assert not (tmp_path / "called lost").exists()
        assert (await invoke(handler, call(request_id="next"))).kind == "ok"


async def test_one_that_has_died_unnoticed_spends_no_retry_either(tmp_path: Path) -> None:
    """The daemon hears of its end in the next turn of the loop at the earliest, and the call goes out in this one."""
    async with running(write_module(tmp_path, COLD)) as handler:
        reservation = await handler.reserve()
        (pid,) = workers()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while alive(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # this loop is blocked
        assert (await reservation.run(call(request_id="lost"))).kind == "not_invoked"
        reservation.release()
        assert (await invoke(handler, call(request_id="next"))).kind == "ok"


async def test_one_that_lives_and_takes_no_call_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runtime has ended, say, and a thread of user code has not: its place would be lost for ever."""
    async with running(write_module(tmp_path, COLD)) as handler:
        (pid,) = workers()
        with monkeypatch.context() as deaf:
            deaf.setattr(FrameChannel, "_send", lambda *_: False)
            assert (await invoke(handler, call(request_id="lost"))).kind == "not_invoked"
        assert (await invoke(handler, call(request_id="next"))).kind == "ok"
        assert pid not in workers()


async def test_a_process_that_slept_with_the_call_on_its_way_does_not_start_it(tmp_path: Path) -> None:
    """As when a container is frozen between the sending and the start."""
    async with running(write_module(tmp_path, COLD)) as handler:
        (pid,) = workers()
        os.kill(pid, signal.SIGSTOP)
        end = instant() + 0.1
        late = asyncio.create_task(
            invoke(handler, msgspec.structs.replace(call(request_id="late"), may_start_for=lambda: end - instant()))
        )
        await eventually(lambda: instant() > end)
        os.kill(pid, signal.SIGCONT)
        outcome = await late
        assert msgspec.structs.replace(outcome, seconds=0.0) == TOO_LATE
        assert not (tmp_path / "called late").exists()
        in_time = msgspec.structs.replace(call(request_id="in time"), may_start_for=lambda: 5.0)
        assert (await invoke(handler, in_time)).kind == "ok"
        assert workers() == [pid]


async def test_nothing_is_sent_when_it_is_too_late_already(tmp_path: Path) -> None:
    """The session was fenced between the look at it and the call, on another thread."""
    async with running(write_module(tmp_path, COLD)) as handler:
        fenced = msgspec.structs.replace(call(request_id="fenced"), may_start_for=lambda: -float("inf"))
        assert await invoke(handler, fenced) == TOO_LATE
        assert (await invoke(handler, call(request_id="next"))).kind == "ok"
        assert not (tmp_path / "called fenced").exists()


async def test_a_connection_that_took_too_long_is_not_used() -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["X-Stream-Consumer-Request-Id"])
        return web.Response()

    async with serving(answer) as url, started(url) as handler:
        for _ in range(2):  # over a new connection, then over one that is open
            late = msgspec.structs.replace(call(request_id="late"), may_start_for=lambda: 0.0)
            outcome = await invoke(handler, late)
            assert msgspec.structs.replace(outcome, seconds=0.0) == TOO_LATE
            assert (await invoke(handler, call(request_id="in time"))).kind == "ok"
    assert seen == ["in time", "in time"]
