"""Deaths of worker processes: time limits, crashes, cancellation, shutdown, and starts that fail."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from tests.integration.handlers.support import alive, call, eventually, invoke, pool, running, workers, write_module

SPAWNS = """
import os, subprocess, sys, time

def grandchild(folder):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(os.path.join(folder, "pids"), "a") as file:
        file.write(f"{os.getpid()} {process.pid}\\n")
"""


def pids_in(folder: Path) -> list[int]:
    try:
        return [int(word) for word in (folder / "pids").read_text().split()]
    except FileNotFoundError:
        return []


async def test_the_time_limit_kills_the_process_and_its_children(tmp_path: Path) -> None:
    code = f"""
def handler(event, context):
    if context.attempt == 1:
        grandchild({str(tmp_path)!r})
        time.sleep(600)
"""
    path = write_module(tmp_path, SPAWNS + code)
    async with running(path) as handler:
        before = workers()
        outcome = await invoke(handler, call(timeout=1.0))
        assert outcome.kind == "failed"
        assert outcome.fault is not None
        assert (outcome.fault.kind, outcome.fault.type) == ("timeout", "Sandbox.Timedout")
        assert "timed out after 1.00 seconds" in outcome.fault.message
        assert 0.9 < outcome.seconds < 3
        assert not alive(before[0])
        worker, grandchild = pids_in(tmp_path)
        assert worker == before[0]
        await eventually(lambda: not alive(grandchild))
        assert (await invoke(handler, call(attempt=2))).kind == "ok"
        assert workers() != before


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("os._exit(3)", "exit status 3"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "signal: SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal: SIGKILL"),
        ("os.closerange(3, 64)", "Runtime exited"),
        ("[os.write(fd, b'x' * 64) for fd in sockets()]", "garbage"),
    ],
)
async def test_a_crash_is_an_outcome_and_the_process_is_replaced(tmp_path: Path, code: str, how: str) -> None:
    path = write_module(
        tmp_path,
        f"""
import os, signal, stat, time
def sockets():
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield fd
        except OSError:
            pass
def handler(event, context):
    if context.attempt == 1:
        {code}
""",
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            outcome = await invoke(handler, call())
            assert outcome.kind == "failed"
            assert outcome.fault is not None
            assert outcome.fault.kind == "crashed"
            assert how in outcome.fault.message
            assert (await invoke(handler, call(attempt=2))).kind == "ok"
    (replaced,) = (entry for entry in logs if entry["event"] == "handler.worker_replaced")
    assert replaced["reason"] in outcome.fault.message


async def test_cancelling_a_call_kills_the_process_before_it_raises(tmp_path: Path) -> None:
    code = f"""
def handler(event, context):
    if context.attempt == 1:
        grandchild({str(tmp_path)!r})
        time.sleep(600)
"""
    path = write_module(tmp_path, SPAWNS + code)
    async with running(path) as handler:
        (pid,) = workers()
        task = asyncio.create_task(invoke(handler, call(timeout=60)))
        await eventually(lambda: bool(pids_in(tmp_path)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)
        assert (await invoke(handler, call(attempt=2))).kind == "ok"


async def test_an_idle_process_that_dies_is_replaced(tmp_path: Path) -> None:
    path = write_module(tmp_path, "def handler(e, c): pass")
    async with running(path, processes=2) as handler:
        victim = workers()[0]
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: len(now := workers()) == 2 and victim not in now)
        outcomes = await asyncio.gather(*[invoke(handler, call()) for _ in range(8)])
        assert {outcome.kind for outcome in outcomes} == {"ok"}


async def test_calls_beyond_the_width_wait_and_a_cancelled_wait_loses_no_process(tmp_path: Path) -> None:
    path = write_module(tmp_path, "import time\ndef handler(e, c): time.sleep(0.2)")
    async with running(path) as handler:
        assert handler.width == 1
        first, second, third = (asyncio.create_task(invoke(handler, call())) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        assert [(await first).kind, (await third).kind] == ["ok", "ok"]
        assert second.cancelled()


async def test_a_replacement_that_cannot_start_backs_off_and_invokes_nothing(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import os
        with open(os.path.join(os.path.dirname(__file__), "starts"), "a") as file:
            file.write("x")
        if os.path.exists(os.path.join(os.path.dirname(__file__), "broken")):
            raise ValueError("the database is away")

        def handler(event, context):
            if context.attempt == 1:
                os._exit(1)
        """,
    )
    async with running(path) as handler:
        (tmp_path / "broken").touch()
        assert (await invoke(handler, call())).kind == "failed"
        for _ in range(2):
            outcome = await invoke(handler, call())
            assert outcome.kind == "not_invoked"
            assert outcome.fault is not None
            assert "the database is away" in outcome.fault.message
        assert len((tmp_path / "starts").read_text()) <= 6
        (tmp_path / "broken").unlink()
        deadline = time.monotonic() + 8
        while (await invoke(handler, call(attempt=2))).kind != "ok":
            assert time.monotonic() < deadline


IMPORT_ERRORS = [
    ("import nothing_like_this", "app:handler", "app.py:1: ModuleNotFoundError: No module named 'nothing_like_this'"),
    ("x = 1\nx / 0", "app:handler", "app.py:2: ZeroDivisionError: division by zero"),
    ("def broken(:\n  pass", "app:handler", "app.py:1: SyntaxError"),
    ("import sys\nsys.exit(4)", "app:handler", "app.py:2: SystemExit: 4"),
    ("raise KeyboardInterrupt", "app:handler", "app.py:1: KeyboardInterrupt"),
    ("def handle(e, c): pass", "app:handler", "has no attribute 'handler' (did you mean 'handle'?)"),
    ("handler = 5", "app:handler", "is not callable, it is a int"),
    ("", "ap:handler", "there is no module 'ap' in"),
    ("import os\nos._exit(9)", "app:handler", "ended during the import: exit status 9"),
]


@pytest.mark.parametrize(("text", "target", "message"), IMPORT_ERRORS)
async def test_an_import_that_fails_is_one_clear_line(tmp_path: Path, text: str, target: str, message: str) -> None:
    handler = pool(write_module(tmp_path, text), target=target, processes=2)
    with pytest.raises(HandlerImportError) as caught:
        await handler.start()
    assert message in str(caught.value)
    assert repr(target) in str(caught.value)
    assert "\n" not in str(caught.value)
    await handler.close()


async def test_an_import_that_hangs_is_reported_and_killed(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import os, time
        with open(os.path.join(os.path.dirname(__file__), "pids"), "a") as file:
            file.write(f"{os.getpid()} ")
        time.sleep(600)
        """,
    )
    handler = pool(path)
    handler.import_timeout = 1.0
    with pytest.raises(HandlerImportError, match="did not end within 1 s"):
        await handler.start()
    assert not any(alive(pid) for pid in pids_in(tmp_path))


async def test_cancelling_start_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import os, time
        with open(os.path.join(os.path.dirname(__file__), "pids"), "a") as file:
            file.write(f"{os.getpid()} ")
        time.sleep(600)
        """,
    )
    handler = pool(path, processes=2)
    task = asyncio.create_task(handler.start())
    await eventually(lambda: len(pids_in(tmp_path)) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(alive(pid) for pid in pids_in(tmp_path))
    await handler.close()


async def test_close_lets_the_call_in_progress_end_and_is_idempotent(tmp_path: Path) -> None:
    code = f"""
def handler(event, context):
    grandchild({str(tmp_path)!r})
    time.sleep(0.3)
"""
    handler = pool(write_module(tmp_path, SPAWNS + code))
    await handler.start()
    task = asyncio.create_task(invoke(handler, call()))
    await eventually(lambda: bool(pids_in(tmp_path)))
    await asyncio.gather(handler.close(), handler.close())
    await handler.close()
    assert (await task).kind == "ok"
    await eventually(lambda: not any(alive(pid) for pid in pids_in(tmp_path)))
    assert (await invoke(handler, call())).kind == "not_invoked"


async def test_close_kills_what_does_not_end(tmp_path: Path) -> None:
    path = write_module(tmp_path, "import time\ndef handler(e, c): time.sleep(600)")
    handler = pool(path)
    handler.close_grace = 0.2
    await handler.start()
    (pid,) = workers()
    task = asyncio.create_task(invoke(handler, call(timeout=60)))
    await asyncio.sleep(0)
    await handler.close()
    outcome = await task
    assert outcome.fault is not None
    assert outcome.fault.kind == "cancelled"
    assert not alive(pid)


async def test_no_descriptors_are_leaked(tmp_path: Path) -> None:
    path = write_module(tmp_path, "import os\ndef handler(e, c):\n    if c.attempt == 1: os._exit(1)")

    async def once() -> None:
        async with running(path) as handler:
            await invoke(handler, call(1))
            await invoke(handler, call(1, attempt=2))

    await once()
    before = len(list(Path("/proc/self/fd").iterdir()))
    await once()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
