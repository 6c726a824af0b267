"""What a handler starts ends with its worker process at the latest, also when it has left the group and the session."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.handlers.support import alive, call, eventually, invoke, running, workers, write_module

STRAYS = """
import os, subprocess, sys, time

PROGRAM = [sys.executable, "-c", "import time; time.sleep(600)"]
FOLDER = os.path.dirname(__file__)

def note(pid):
    with open(os.path.join(FOLDER, "pids"), "a") as file:
        file.write(f"{pid}\\n")

def in_a_session_of_its_own():
    note(subprocess.Popen(PROGRAM, start_new_session=True).pid)

def daemonized():
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.chdir("/")
            time.sleep(600)
            os._exit(0)
        note(pid)
        os._exit(0)
    os.wait()

def with_children():
    start = f"p = subprocess.Popen({PROGRAM!r}, start_new_session=True); print(p.pid, flush=True)"
    code = f"import subprocess, sys, time; {start}; time.sleep(600)"
    leader = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    note(int(leader.stdout.readline()))
    note(leader.pid)

def handler(event, context):
    in_a_session_of_its_own()
    daemonized()
    with_children()
    note(0)
    if context.attempt == 1:
        time.sleep(600)
    if context.attempt == 2:
        os._exit(3)
"""


@pytest.fixture
def strays(tmp_path: Path) -> Iterator[Path]:
    """A folder with the handler; what it leaves behind in the end is killed."""
    write_module(tmp_path, STRAYS)
    yield tmp_path
    for pid in _strays(tmp_path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def _words(folder: Path) -> list[int]:
    file = folder / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def _strays(folder: Path) -> list[int]:
    return [pid for pid in _words(folder) if pid]


@pytest.mark.parametrize(("attempt", "kind"), [(1, "timeout"), (2, "crashed")])
async def test_they_die_with_the_call_that_ends_the_process(strays: Path, attempt: int, kind: str) -> None:
    """They are dead when the call has come back: the next attempt must not run beside them."""
    async with running(str(strays)) as handler:
        outcome = await invoke(handler, call(timeout=3.0, attempt=attempt))
        assert outcome.fault is not None
        assert outcome.fault.kind == kind
        assert len(_strays(strays)) == 4
        await eventually(lambda: not any(alive(pid) for pid in _strays(strays)))  # a killed one runs no more


async def test_they_die_with_a_call_that_is_cancelled(strays: Path) -> None:
    async with running(str(strays)) as handler:
        task = asyncio.create_task(invoke(handler, call(timeout=60)))
        await eventually(lambda: 0 in _words(strays))
        assert all(alive(pid) for pid in _strays(strays))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not any(alive(pid) for pid in _strays(strays)))  # a killed one runs no more


async def test_they_live_as_long_as_their_process_and_no_other_is_touched(strays: Path) -> None:
    """A function may keep a program in the background, as in Lambda. The death of one process is not that of others."""
    async with running(str(strays), processes=2) as handler:
        both = [await handler.reserve(), await handler.reserve()]
        for one in both:
            assert (await one.run(call(attempt=3))).kind == "ok"
        for one in both:
            one.release()
        pids = _strays(strays)
        assert len(pids) == 8
        assert all(alive(pid) for pid in pids)
        killed = workers()[0]
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: killed not in workers() and sum(alive(pid) for pid in pids) == 4)
        outcomes = [await invoke(handler, call(attempt=3)) for _ in range(2)]  # the first one may meet the dead process
        assert outcomes[-1].kind == "ok"
        assert sum(alive(pid) for pid in pids) == 4
    await eventually(lambda: not any(alive(pid) for pid in _strays(strays)))  # a killed one runs no more


DAEMON = """
import asyncio, sys
from tests.integration.handlers.support import call, invoke, pool

async def main():
    handler = pool(sys.argv[1])
    await handler.start()
    await invoke(handler, call(timeout=600, attempt=int(sys.argv[2])))
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("attempt", [1, 3], ids=["in a call", "after a call"])
async def test_they_die_with_a_daemon_that_was_killed(strays: Path, attempt: int) -> None:
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(strays), str(attempt)], cwd=root, env=environment)
    try:
        await eventually(lambda: 0 in _words(strays), 10)
        assert all(alive(pid) for pid in _strays(strays))
    finally:
        daemon.kill()
        daemon.wait()
    await eventually(lambda: not any(alive(pid) for pid in _strays(strays)))
