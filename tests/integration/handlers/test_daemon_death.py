"""Worker processes and everything they started die with the daemon; signals alone do not end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.handlers.support import alive, call, children, eventually, invoke, running, workers, write_module

HANDLER = """
import os, subprocess, sys, time

def note(text):
    with open(os.path.join(os.path.dirname(__file__), "pids"), "a") as file:
        file.write(text + " ")

note(str(os.getpid()))

def handler(event, context):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note(str(program.pid))
    pid = os.fork()  # keeps a copy of every descriptor
    if pid == 0:
        time.sleep(600)
    note(str(pid))
    note("done")
    HOW
"""

DAEMON = """
import asyncio, sys
from consumer.handlers.build import pool_of_workers
from tests.integration.handlers.support import call, invoke

async def main():
    handler = pool_of_workers("lambda", "app:handler", sys.argv[1], processes=2,
                              report_failures=True, application="orders")
    await handler.start()
    await asyncio.gather(*[invoke(handler, call(timeout=600)) for _ in range(2)])
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("how", "reaper_dies"),
    [
        ("time.sleep(600)", False),
        ("return None", False),
        # Holds the interpreter lock for ever: no thread of the worker could notice anything.
        ("import re; re.match(r'(a+)+$', 'a' * 60 + 'b')", False),
        ("return None", True),
    ],
    ids=["busy", "idle", "wedged", "the reaper was replaced"],
)
async def test_nothing_outlives_a_daemon_that_was_killed(tmp_path: Path, how: str, reaper_dies: bool) -> None:
    """Also when the reaper died before: the one in its place knows the groups that it never saw the start of."""
    path = write_module(tmp_path, HANDLER.replace("HOW", how))
    root = str(Path(__file__).parents[3])
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, path], cwd=root, env={**os.environ, "PYTHONPATH": root})

    def words() -> list[str]:
        file = tmp_path / "pids"
        return file.read_text().split() if file.exists() else []

    def reapers() -> list[int]:
        return children("orphan_reaper_main.py", daemon.pid)

    try:
        await eventually(lambda: words().count("done") == 2, 8)
        pids = [int(word) for word in words() if word != "done"]
        assert len(pids) == 6
        assert len(workers(daemon.pid)) == 2
        (reaper,) = reapers()
        assert all(alive(pid) for pid in pids)
        if reaper_dies:
            os.kill(reaper, signal.SIGKILL)
            await eventually(lambda: len(found := reapers()) == 1 and found != [reaper])
        pids += workers(daemon.pid) + reapers()
    finally:
        daemon.kill()
        daemon.wait()
    await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_signals_to_a_worker_do_not_end_it_but_its_programs_get_the_defaults(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import multiprocessing, os, signal, subprocess, time

        def handler(event, context):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            program = subprocess.Popen(["sleep", "600"])
            program.terminate()
            assert program.wait(5) == -signal.SIGTERM
            forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            forked.start()
            forked.terminate()
            forked.join(5)
            assert forked.exitcode == -signal.SIGTERM
            assert os.getpgid(0) == os.getpid()
        """,
    )
    async with running(path) as handler:
        (pid,) = workers()
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        outcome = await invoke(handler, call())
        assert outcome.kind == "ok", outcome
        assert workers() == [pid]
