"""What a worker process has said counts, however soon it has ended after that."""

from __future__ import annotations

import os

import msgspec
import pytest

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
