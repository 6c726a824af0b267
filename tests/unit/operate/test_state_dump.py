"""Stacks of threads and tasks for the log: where each one is, bounded, and without anything of user code but places."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from consumer.operate import state_dump
from consumer.worker.control_thread import ControlThread
from consumer.worker.tasks import never_ending


def test_every_thread_is_shown_with_the_place_where_it_is() -> None:
    waiting, done = threading.Event(), threading.Event()

    def waits_here() -> None:
        waiting.set()
        done.wait()

    thread = threading.Thread(target=waits_here, name="order of Jane Doe")
    thread.start()
    waiting.wait()
    try:
        found = state_dump.threads()
    finally:
        done.set()
        thread.join()
    places = [place for report in found for place in report["stack"]]
    assert any(place.endswith("waits_here") and "operate/test_state_dump.py:" in place for place in places)
    assert "MainThread" in [report["name"] for report in found]
    assert "Jane" not in json.dumps(found), "user code names its threads as it likes"


async def test_threads_of_the_daemon_are_shown_by_their_names() -> None:
    control = ControlThread()
    control.start()
    try:
        assert "control" in [report["name"] for report in state_dump.threads()]
    finally:
        await control.stop()


async def _inner(event: asyncio.Event) -> None:
    await event.wait()


async def _outer(event: asyncio.Event) -> None:
    await _inner(event)


class _Old:
    """An awaitable that is no coroutine, as libraries have them."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    def __await__(self) -> Iterator[Any]:
        yield from self._event.wait().__await__()


async def _waits_for(awaitable: Any) -> None:
    await awaitable


async def test_tasks_that_wait_at_one_place_are_one_line_and_rare_ones_come_first() -> None:
    event = asyncio.Event()
    many = [asyncio.create_task(_outer(event)) for _ in range(50)]
    one = asyncio.create_task(_waits_for(_Old(event)))
    await asyncio.sleep(0)
    groups = await asyncio.to_thread(state_dump.task_groups, asyncio.get_running_loop())
    for task in (*many, one):
        task.cancel()
    rare, *_, frequent = groups
    assert (rare["count"], frequent["count"]) == (1, 50)
    assert [place.rpartition(" ")[2] for place in frequent["stack"]] == ["_outer", "_inner", "Event.wait"]
    old = next(group for group in groups if any("_waits_for" in place for place in group["stack"]))
    assert old["stack"][-1].endswith("_Old.__await__")


async def test_names_of_the_tasks_of_user_code_are_not_shown() -> None:
    """They may be the id of an order."""
    event = asyncio.Event()
    own = asyncio.create_task(never_ending("x", event.wait()), name="read shard-1")
    foreign = asyncio.create_task(_outer(event), name="order of Jane Doe")
    await asyncio.sleep(0)
    text = json.dumps(state_dump.task_groups(asyncio.get_running_loop()))
    own.cancel()
    foreign.cancel()
    assert "read shard-1" in text
    assert "Jane" not in text


async def test_however_much_there_is_a_dump_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_dump, "MOST_GROUPS", 2)
    monkeypatch.setattr(state_dump, "MOST_FRAMES", 3)
    event = asyncio.Event()

    async def deep(level: int) -> None:
        await (deep(level - 1) if level else event.wait())

    tasks = [asyncio.create_task(deep(level)) for level in range(20)]
    await asyncio.sleep(0)
    groups = state_dump.task_groups(asyncio.get_running_loop())
    for task in tasks:
        task.cancel()
    assert len(groups) == 2
    assert all(len(group["stack"]) <= 3 for group in groups)
