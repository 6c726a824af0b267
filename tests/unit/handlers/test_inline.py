"""``isolation: inline``: user code on the daemon's own loop, or in a thread, can neither break nor outlive a call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import TOO_LATE
from consumer.handlers.inline import InlineHandler
from tests.integration.handlers.support import call, eventually, invoke, number, write_module


def module_name(tmp_path: Path) -> str:
    """A name of its own: inline handlers are imported into this process, and modules are imported once."""
    return f"inline_{abs(hash(str(tmp_path)))}"


@asynccontextmanager
async def running(tmp_path: Path, text: str, **options: Any) -> AsyncIterator[InlineHandler]:
    name = module_name(tmp_path)
    handler = InlineHandler(f"{name}:handler", write_module(tmp_path, text, name), **options)
    await handler.start()
    try:
        yield handler
    finally:
        await handler.close()
        sys.path.remove(str(tmp_path))
        sys.modules.pop(name)


RAISES = [
    ("raise ValueError('boom')", "ValueError", "boom"),
    ("raise SystemExit(3)", "SystemExit", "3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("raise GeneratorExit", "GeneratorExit", ""),
    ("raise asyncio.CancelledError", "CancelledError", ""),
    ("raise MemoryError", "MemoryError", ""),
    ("raise StopIteration(1)", "", ""),
    ("recurse()", "RecursionError", "maximum recursion depth"),
    ("raise BaseExceptionGroup('many', [SystemExit(1)])", "BaseExceptionGroup", "SystemExit: 1"),
    ("return 5", "BadResponse", "returned int"),
    ("return (x for x in records)", "BadResponse", "returned generator"),
    ("return float('nan')", "BadResponse", "returned float"),
    ("return coroutine()", "BadResponse", "coroutine"),
    ("return ['unknown']", "BadResponse", "not a record"),
]


@pytest.mark.parametrize("prefix", ["def", "async def"])
async def test_whatever_user_code_does_is_an_outcome(tmp_path: Path, prefix: str) -> None:
    branches = "\n".join(f"    if context.attempt == {i}:\n        {code}" for i, (code, _, _) in enumerate(RAISES))
    text = f"""
import asyncio
def recurse():
    recurse()
async def coroutine():
    pass
{prefix} handler(records, context):
{branches}
"""
    async with running(tmp_path, text) as handler:
        for attempt, (code, type_, message) in enumerate(RAISES):
            outcome = await invoke(handler, call(attempt=attempt))
            assert outcome.kind == "failed", code
            assert outcome.fault is not None
            assert outcome.fault.type == type_ or not type_, code
            assert message in outcome.fault.message, code
        assert (await invoke(handler, call(attempt=99))).kind == "ok"


async def test_cancelling_its_own_task_is_a_failure_and_not_our_cancellation(tmp_path: Path) -> None:
    text = """
    import asyncio

    async def handler(records, context):
        asyncio.current_task().cancel()
        if context.attempt == 1:
            await asyncio.sleep(1)
    """
    async with running(tmp_path, text) as handler:
        outcome = await invoke(handler, call())
        assert outcome.fault is not None
        assert (outcome.fault.kind, outcome.fault.type) == ("raised", "CancelledError")
        await invoke(handler, call(attempt=2))
        ours = asyncio.current_task()
        assert ours is not None
        assert ours.cancelling() == 0
        await asyncio.sleep(0)


@pytest.mark.parametrize("prefix", ["def", "async def"])
async def test_failed_records_and_fresh_images(tmp_path: Path, prefix: str) -> None:
    text = f"""
{prefix} handler(records, context):
    assert records[1].new_image["n"] == 1
    records[1].new_image["n"] = "changed"
    failed = [records[1]]
    records.clear()
    return failed
"""
    async with running(tmp_path, text) as handler:
        batch = call(3)
        for _ in range(2):
            outcome = await invoke(handler, batch)
            assert (outcome.kind, outcome.failed) == ("partial", (number(1),)), outcome
    async with running(tmp_path, text, report_failures=False) as handler:
        assert (await invoke(handler, call(3))).kind == "ok"


async def test_a_hang_is_cancelled_at_the_time_limit_and_its_clean_up_is_awaited(tmp_path: Path) -> None:
    text = """
    import asyncio
    ended = []

    async def handler(records, context):
        ended.append(context.get_remaining_time_in_millis())
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.05)
            ended.append("clean")
    """
    async with running(tmp_path, text) as handler:
        outcome = await invoke(handler, call(timeout=0.1))
        assert outcome.fault is not None
        assert outcome.fault.kind == "timeout"
        assert outcome.seconds >= 0.15
        first, last = sys.modules[module_name(tmp_path)].ended
        assert last == "clean"
        assert 50 < first <= 100


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_what_cannot_be_cancelled_is_awaited_and_complained_about(tmp_path: Path, kind: str) -> None:
    text = {
        "async": """
        import asyncio, time

        async def handler(records, context):
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                try:
                    await asyncio.sleep(end - time.monotonic())
                except asyncio.CancelledError:
                    pass
        """,
        "plain": """
        import time

        def handler(records, context):
            time.sleep(0.5)
        """,
    }[kind]
    async with running(tmp_path, text, first_complaint=0.05) as handler:
        with capture_logs() as logs:
            outcome = await invoke(handler, call(timeout=0.05))
        assert outcome.fault is not None
        assert outcome.fault.kind == "timeout"
        assert outcome.seconds >= 0.5
        stuck = [entry["seconds"] for entry in logs if entry["event"] == "handler.stuck"]
        assert 2 <= len(stuck) <= 4
        assert stuck == sorted(stuck)
        # The same when the daemon cancels: only the real end lets it go on.
        task = asyncio.create_task(invoke(handler, call(timeout=60)))
        started = time.monotonic()
        await asyncio.sleep(0.05)
        with capture_logs() as logs:
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert time.monotonic() - started >= 0.5
        assert [entry["event"] for entry in logs[:2]] == ["handler.stuck"] * 2


async def test_cancelling_invoke_cancels_the_handler_at_once(tmp_path: Path) -> None:
    text = """
    import asyncio
    started = asyncio.Event()
    ended = asyncio.Event()

    async def handler(records, context):
        started.set()
        try:
            await asyncio.sleep(600)
        finally:
            ended.set()
    """
    async with running(tmp_path, text) as handler:
        names = vars(sys.modules[module_name(tmp_path)])
        task = asyncio.create_task(invoke(handler, call(timeout=600)))
        await names["started"].wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names["ended"].is_set()
        # Before its first step:
        task = asyncio.create_task(invoke(handler, call(timeout=600)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # And through a time limit of the caller:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await invoke(handler, call(timeout=600))


async def test_plain_functions_run_in_daemon_threads_of_their_own(tmp_path: Path) -> None:
    text = """
    import threading
    both = threading.Barrier(2, timeout=5)

    def handler(records, context):
        assert threading.current_thread().daemon
        assert threading.current_thread() is not threading.main_thread()
        both.wait()
    """
    async with running(tmp_path, text) as handler:
        assert handler.width > 0
        outcomes = await asyncio.gather(invoke(handler, call()), invoke(handler, call()))
        assert [outcome.kind for outcome in outcomes] == ["ok", "ok"]
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("handler-")])


async def test_async_callables_of_every_make(tmp_path: Path) -> None:
    makes: list[str] = [
        "async def handler(records, context): pass",
        "import functools\nasync def f(x, records, context): assert x == 1\nhandler = functools.partial(f, 1)",
        "class C:\n    async def __call__(self, records, context): pass\nhandler = C()",
        "class C:\n    async def go(self, records, context): pass\nhandler = C().go",
    ]
    for text in makes:
        async with running(tmp_path, text) as handler:
            assert handler.width == 0
            assert (await invoke(handler, call())).kind == "ok", text
        for cached in (tmp_path / "__pycache__").glob("*"):
            cached.unlink()


async def test_import_errors_and_hangs(tmp_path: Path) -> None:
    checks: list[tuple[str, str]] = [("import sys; sys.exit(2)", "SystemExit: 2"), ("x = 1", "no attribute 'handler'")]
    for index, (text, message) in enumerate(checks):
        handler = InlineHandler(f"inline_bad_{index}:handler", write_module(tmp_path, text, f"inline_bad_{index}"))
        with pytest.raises(HandlerImportError, match=message):
            await handler.start()
        assert (await invoke(handler, call())).kind == "not_invoked"
    gate = threading.Event()
    threading.inline_test_gate = gate  # type: ignore[attr-defined]  # where handler code finds it
    text = "import threading\nthreading.inline_test_gate.wait(30)\ndef handler(r, c): pass"
    handler = InlineHandler("inline_hang:handler", write_module(tmp_path, text, "inline_hang"))
    handler.import_timeout = 0.2
    with pytest.raises(HandlerImportError, match=r"did not end within 0\.2 s"):
        await handler.start()
    gate.set()
    del threading.inline_test_gate  # type: ignore[attr-defined]  # as above


def test_a_hung_plain_function_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    write_module(tmp_path, "import time\ndef handler(r, c): time.sleep(600)")
    script = """
import asyncio, sys
from consumer.handlers.inline import InlineHandler
from tests.integration.handlers.support import call, invoke

async def main():
    handler = InlineHandler("app:handler", sys.argv[1])
    await handler.start()
    task = asyncio.create_task(invoke(handler, call()))
    await asyncio.sleep(0.05)

loop = asyncio.new_event_loop()
loop.run_until_complete(main())
print("end")
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=root, timeout=8, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout == "end\n"


async def test_calls_of_one_turn_do_not_hold_each_others_images(tmp_path: Path) -> None:
    """Decoded images go with the call that decoded them, not a turn of the loop later: a page is many calls a turn."""
    text = """
    held = []

    async def handler(records, context):
        held.append(sum(record.cached is not None for call in calls for record in call.records))
        assert all(record.new_image for record in records)

    calls = []
    """
    async with running(tmp_path, text) as handler:
        module = sys.modules[module_name(tmp_path)]
        module.calls.extend([call(3), call(2), call(3)])
        outcomes = await asyncio.gather(*(invoke(handler, each) for each in module.calls))
        assert [outcome.kind for outcome in outcomes] == ["ok"] * 3
        assert module.held == [0, 0, 0]


async def test_every_call_has_its_own_deadline_on_the_shared_timer(tmp_path: Path) -> None:
    """Longer ones before and after, some that end in time: only the short ones expire, each on its own."""
    text = """
    import asyncio

    async def handler(records, context):
        await asyncio.sleep(600 if context.aws_request_id.startswith("hangs") else 0)
    """
    async with running(tmp_path, text) as handler:
        patient = asyncio.create_task(invoke(handler, call(timeout=600, request_id="hangs-long")))
        await asyncio.sleep(0)
        assert (await invoke(handler, call(timeout=0.05))).kind == "ok"
        waits = (0.2, 0.05, 0.1)
        short = [asyncio.create_task(invoke(handler, call(timeout=wait, request_id=f"hangs-{wait}"))) for wait in waits]
        outcomes = await asyncio.gather(*short)
        for wait, outcome in zip(waits, outcomes, strict=True):
            assert outcome.fault is not None
            assert outcome.fault.kind == "timeout"
            assert outcome.seconds >= wait
        again = await invoke(handler, call(timeout=0.05, request_id="hangs-again"))
        assert again.fault is not None
        assert again.fault.kind == "timeout"
        assert not patient.done()
        patient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await patient


@pytest.mark.parametrize("prefix", ["def", "async def"])
async def test_user_code_that_comes_to_its_turn_too_late_does_not_start(tmp_path: Path, prefix: str) -> None:
    """Calls that were started one after the other run one after the other on a loop that the first one blocks."""
    code = f"""
        import pathlib
        {prefix} handler(records, context):
            pathlib.Path({str(tmp_path)!r}, context.aws_request_id).touch()
    """
    late = tmp_path / "first"
    async with running(tmp_path, code) as handler:
        first, second = (
            msgspec.structs.replace(call(request_id=name), may_start_for=lambda: 0.0 if late.exists() else 1.0)
            for name in ("first", "second")
        )
        if prefix == "def":  # each in a thread of its own
            assert (await invoke(handler, first)).kind == "ok"
            outcomes = [await invoke(handler, second)]
        else:
            outcomes = list(await asyncio.gather(invoke(handler, first), invoke(handler, second)))
            assert outcomes.pop(0).kind == "ok"
        assert outcomes == [TOO_LATE]
        assert not (tmp_path / "second").exists()
        late.unlink()
        assert (await invoke(handler, second)).kind == "ok"


@pytest.mark.parametrize(("kind", "interval"), [("def", 0.0005), ("async def", 0.005)])
async def test_threads_that_compute_give_way_to_renewals_and_probes(tmp_path: Path, kind: str, interval: float) -> None:
    """Ten times as often as Python's own rule, which is kept where nothing of the user's runs in threads."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    try:
        name = f"inline_switch_{kind.split()[0]}"
        await InlineHandler(f"{name}:handler", write_module(tmp_path, f"{kind} handler(r, c): pass", name)).start()
        assert sys.getswitchinterval() == pytest.approx(interval)
    finally:
        sys.setswitchinterval(before)
