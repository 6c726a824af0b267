"""What a worker process has said counts, however soon it has ended after that."""

from __future__ import annotations

import asyncio
import os
import socket

import msgspec
import pytest

from consumer.domain.outcome import HandlerCall
from consumer.handlers import frames
from consumer.handlers.channel import Answer
from consumer.handlers.frame_channel import FrameChannel
from consumer.handlers.frames import Reply, Setup
from consumer.handlers.handler_faults import HandlerImportError
from consumer.handlers.runtime import wire

SETUP = Setup("lambda", "app:handler", None, True)
REFUSAL = "handler.python: /usr/bin/python is Python 2.7.18; 3.9 or newer is needed"


class Listener:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.broken: list[str] = []

    def on_ready(self, problem: HandlerImportError | None) -> None:
        self.problems.append(str(problem))

    def on_answer(self, answer: Answer) -> None:
        raise AssertionError("there was no call")

    def on_idle(self) -> None:
        raise AssertionError("there was no call")

    def on_broken(self, problem: str) -> None:
        self.broken.append(problem)


def refusal() -> bytes:
    return wire.head_of(msgspec.json.encode(Reply("import_failed", message=REFUSAL)), b"")


@pytest.mark.parametrize("connected", [False, True], ids=["before it is connected to", "between two looks at it"])
async def test_a_process_that_refuses_and_ends_at_once_is_heard(connected: bool) -> None:
    listener = Listener()
    channel = FrameChannel(SETUP, None, listener)
    program = await channel.open()
    (inherited,) = program.inherited
    process = os.dup(inherited)
    if connected:
        await channel.connect(1)
    os.write(process, refusal())
    os.close(process)
    if not connected:
        await channel.connect(1)
    await channel.close()
    assert listener.broken == []
    assert len(listener.problems) == 1
    assert REFUSAL in listener.problems[0]


async def test_half_of_a_sentence_is_no_news() -> None:
    listener = Listener()
    channel = FrameChannel(SETUP, None, listener)
    program = await channel.open()
    process = os.dup(program.inherited[0])
    await channel.connect(1)
    os.write(process, refusal()[:-5])
    os.close(process)
    await channel.close()
    assert (listener.problems, listener.broken) == ([], [])


def call(request_id: str) -> HandlerCall:
    return HandlerCall((), request_id, 1, "orders", "shardId-1", 7, 60.0)


async def test_events_arrive_as_they_were_made() -> None:
    """Those that the socket takes at once, and those that it takes in parts."""
    channel = FrameChannel(SETUP, None, Listener())
    program = await channel.open()
    with socket.socket(fileno=os.dup(program.inherited[0])) as process:
        await channel.connect(1)
        first = await asyncio.to_thread(wire.receive, process)
        assert first is not None
        assert first[0]["target"] == "app:handler"
        for size in (0, 1, 100_000, 6 << 20, 10):
            event = os.urandom(1000) * (size // 1000) + os.urandom(size % 1000)
            assert channel.hand_over(call(f"request-{size}"), event) is None
            received = await asyncio.to_thread(wire.receive, process)
            assert received is not None
            assert received[0]["request_id"] == f"request-{size}"
            assert received[1] == event
        await channel.close()


async def test_what_is_still_on_its_way_goes_first() -> None:
    """Also where the process reads meanwhile, so that the socket has room for what comes later."""
    channel = FrameChannel(SETUP, None, Listener())
    program = await channel.open()
    with socket.socket(fileno=os.dup(program.inherited[0])) as process:
        await channel.connect(1)
        events = [b"x" * (6 << 20), b"y" * 10]
        assert channel.hand_over(call("request-1"), events[0]) is None
        splitter = frames.Splitter()
        received = list(splitter.feed(process.recv(1 << 20)))
        assert channel.hand_over(call("request-2"), events[1]) is None
        async with asyncio.timeout(30):
            while len(received) < 3:
                received += splitter.feed(await asyncio.to_thread(process.recv, 1 << 20))
        assert [bytes(body) for _, body in received[1:]] == events
        await channel.close()


async def test_an_event_for_a_process_that_is_gone_was_not_handed_over() -> None:
    """The news of its end may come later."""
    channel = FrameChannel(SETUP, None, Listener())
    program = await channel.open()
    process = os.dup(program.inherited[0])
    await channel.connect(1)
    os.close(process)
    refused = channel.hand_over(call("request-1"), b"{}")
    assert refused is not None
    assert refused.fault is not None
    assert (refused.kind, refused.fault.kind) == ("not_invoked", "crashed")
    await channel.close()
