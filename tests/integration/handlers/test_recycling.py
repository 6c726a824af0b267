"""``handler.max_calls``, ``handler.max_memory``: worker processes that have done enough are replaced between calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from tests.integration.handlers.support import call, eventually, invoke, running, workers, write_module

NOTES_ITS_PROCESS = """
import atexit, os

FOLDER = os.path.dirname(__file__)
KEPT = []

def note(text):
    with open(os.path.join(FOLDER, "notes"), "a") as file:
        file.write(f"{os.getpid()} {text}\\n")

atexit.register(note, "orderly")

def handler(event, context):
    note(context.aws_request_id)
    if context.aws_request_id == "leak":
        KEPT.append(bytearray(os.urandom(1024)) * (160 << 10))
"""


def notes(folder: Path) -> list[tuple[int, str]]:
    """Process and what it noted, in order."""
    lines = [line.split(" ", 1) for line in (folder / "notes").read_text().splitlines()]
    return [(int(pid), text) for pid, text in lines]


async def test_no_process_runs_more_calls_and_no_call_is_lost(tmp_path: Path) -> None:
    path = write_module(tmp_path, NOTES_ITS_PROCESS)
    with capture_logs() as logs:
        async with running(path, max_calls=3) as handler:
            for number in range(8):
                assert (await invoke(handler, call(request_id=f"r{number}"))).kind == "ok"
    done = [text for _, text in notes(tmp_path)]
    per_process = [text.split() for text in " ".join(done).split("orderly")]
    assert per_process == [["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6", "r7"], []]
    recycled = [entry for entry in logs if entry["event"] == "handler.worker_recycled"]
    assert [(entry["log_level"], entry["slot"], entry["calls"]) for entry in recycled] == [("info", 0, 3)] * 2
    assert {entry["reason"] for entry in recycled} == {"handler.max_calls: 3"}
    assert not [entry for entry in logs if entry["event"] == "handler.worker_replaced"]


async def test_one_process_is_replaced_at_a_time(tmp_path: Path) -> None:
    """Those that were started together have done enough together; the others go on until it is their turn."""
    slow_start = 'import time\nif "notes" in os.listdir(FOLDER):\n    time.sleep(0.3)\n'
    path = write_module(tmp_path, NOTES_ITS_PROCESS + slow_start)
    least = 3
    async with running(path, processes=3, max_calls=2) as handler:

        async def watch() -> None:
            nonlocal least
            while True:
                least = min(least, len(workers()))
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(20):
            while len({pid for pid, _ in notes(tmp_path)} if (tmp_path / "notes").exists() else ()) < 6:
                outcomes = await asyncio.gather(*[invoke(handler, call()) for _ in range(6)])
                assert {outcome.kind for outcome in outcomes} == {"ok"}
        watching.cancel()
    assert least == 2


async def test_a_process_that_grew_is_replaced_after_its_call(tmp_path: Path) -> None:
    path = write_module(tmp_path, NOTES_ITS_PROCESS)
    with capture_logs() as logs:
        async with running(path, max_memory=140 << 20) as handler:
            before = workers()
            assert (await invoke(handler, call(request_id="small"))).kind == "ok"
            assert workers() == before
            assert (await invoke(handler, call(request_id="leak"))).kind == "ok"
            assert (await invoke(handler, call(request_id="next"))).kind == "ok"
            assert workers() != before
    assert [text for _, text in notes(tmp_path)] == ["small", "leak", "orderly", "next", "orderly"]
    (recycled,) = [entry for entry in logs if entry["event"] == "handler.worker_recycled"]
    assert recycled["reason"].startswith("handler.max_memory: it held 1")


async def test_a_process_that_does_not_end_is_killed_and_a_close_does_not_wait_for_it(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import atexit, time
        atexit.register(time.sleep, 600)
        def handler(event, context):
            pass
        """,
    )
    async with running(path, max_calls=1) as handler:
        handler.close_grace = 0.2
        (first,) = workers()
        for _ in range(2):
            assert (await invoke(handler, call())).kind == "ok"
        assert first not in workers()
    await eventually(lambda: not workers())


async def test_the_replacement_serves_who_waits(tmp_path: Path) -> None:
    path = write_module(tmp_path, NOTES_ITS_PROCESS)
    async with running(path, max_calls=1) as handler:
        outcomes = await asyncio.gather(*[invoke(handler, call(request_id=f"r{number}")) for number in range(5)])
        assert {outcome.kind for outcome in outcomes} == {"ok"}
    assert len({pid for pid, text in notes(tmp_path) if text != "orderly"}) == 5
