"""Programs that speak the Lambda Runtime API: calls, starts, ends, and manners that no runtime should have. Answers and
errors are in ``test_parity.py``, by AWS's own clients, and in ``test_runtime_api_answers.py``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from tests.integration.handlers.runtimes import running_program, write_program
from tests.integration.handlers.support import SOURCE_ARN, alive, call, children, eventually, invoke, number


def a_call(records: int = 1, **fields: Any) -> Any:
    return msgspec.structs.replace(call(records), request_id=str(uuid.uuid4()), **fields)


def lines(logs: Any, stream: str = "stdout") -> list[Any]:
    return [entry for entry in logs if entry["event"] == "handler.output" and entry["stream"] == stream]


async def test_an_invocation_is_lambdas(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        def handle(event, headers):
            print(json.dumps([event, dict(headers), os.getcwd(), time.time(), dict(os.environ)]))
        run(handle)
        """,
    )
    one = a_call(2, timeout=5.0)
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            assert (await invoke(handler, one)).kind == "ok"
    (line,) = lines(logs)
    assert (line["request_id"], line["shard_id"]) == (one.request_id, "shardId-1")
    event, headers, folder, now, environment = json.loads(line["line"])
    assert event == {"Records": [record.as_event() for record in one.records]}
    assert folder == str(tmp_path)
    assert headers["Lambda-Runtime-Aws-Request-Id"] == one.request_id
    assert 4.5 < int(headers["Lambda-Runtime-Deadline-Ms"]) / 1000 - now <= 5.0
    region, account = SOURCE_ARN.split(":")[3:5]
    arn = f"arn:aws:lambda:{region}:{account}:function:orders-projector"
    assert headers["Lambda-Runtime-Invoked-Function-Arn"] == arn
    trace = headers["Lambda-Runtime-Trace-Id"]
    assert re.fullmatch("Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", trace)
    assert "Lambda-Runtime-Client-Context" not in headers
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "orders-projector"
    assert environment["AWS_REGION"] == "eu-west-1"
    assert environment["LAMBDA_TASK_ROOT"] == str(tmp_path)
    assert environment["AWS_XRAY_SDK_ENABLED"] == "false"
    assert "_HANDLER" not in environment


@pytest.mark.parametrize(
    ("arguments", "users", "found"),
    [
        ((), None, None),
        (("--flag", "index.handler"), None, "index.handler"),
        (("index.handler",), "own.one", "own.one"),
    ],
)
async def test_the_last_argument_is_the_handler(
    tmp_path: Path, arguments: tuple[str, ...], users: str | None, found: str | None
) -> None:
    """As AWS's emulator has it; the client for Node.js looks only there. What the user set wins."""
    program = "print(json.dumps(os.environ.get('_HANDLER')), flush=True)\nrun(lambda *_: None)"
    command = (*write_program(tmp_path, program), *arguments)
    with capture_logs() as logs:
        async with running_program(command, tmp_path, {"_HANDLER": users} if users else {}):
            await eventually(lambda: bool(lines(logs)))
    assert json.loads(lines(logs)[0]["line"]) == found


async def test_the_next_call_waits_until_the_runtime_asks_for_it(tmp_path: Path) -> None:
    """What goes on after the answer is still user code, and one call at a time is what it relies on."""
    command = write_program(
        tmp_path,
        """
        while True:
            answer, event = ask("GET", "/invocation/next")
            open("log", "a").write("start ")
            ask("POST", "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "null")
            while not os.path.exists("go"):
                time.sleep(0.01)
            open("log", "a").write("end ")
        """,
    )
    async with running_program(command, tmp_path) as handler:
        assert (await invoke(handler, a_call())).kind == "ok"
        second = asyncio.create_task(invoke(handler, a_call()))
        await asyncio.sleep(0.3)  # long enough for a call that does not wait
        assert (tmp_path / "log").read_text() == "start "
        (tmp_path / "go").touch()
        assert (await second).kind == "ok"
        assert (tmp_path / "log").read_text().startswith("start end start ")


async def test_what_goes_on_after_an_answer_ends_before_a_process_is_recycled(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        answer, event = ask("GET", "/invocation/next")
        ask("POST", "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "null")
        time.sleep(0.3)
        open("ended", "a").write("x")
        run(lambda event, headers: None)
        """,
    )
    async with running_program(command, tmp_path, max_calls=1) as handler:
        assert (await invoke(handler, a_call())).kind == "ok"
        assert (await invoke(handler, a_call())).kind == "ok", "by the next process"
        assert (tmp_path / "ended").read_text() == "x"


async def test_a_runtime_that_never_asks_again_is_replaced(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        answer, event = ask("GET", "/invocation/next")
        ask("POST", "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response", "null")
        time.sleep(600)
        """,
    )
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            assert (await invoke(handler, a_call(timeout=0.5))).kind == "ok"
            assert (await invoke(handler, a_call(timeout=5.0))).kind == "ok", "by another process"
    (replaced,) = [entry for entry in logs if entry["event"] == "handler.worker_replaced"]
    assert replaced["reason"] == "it asked for no work for 0.5 s"


async def test_ownership_is_checked_when_the_call_is_handed_over(tmp_path: Path) -> None:
    """The loop was blocked, or the machine slept, after the call was given to the process."""
    command = write_program(tmp_path, "run(lambda event, headers: print(open('called', 'a').write('x')))")
    async with running_program(command, tmp_path) as handler:
        late = a_call(may_start_for=lambda: 0.0)
        outcome = await invoke(handler, late)
        assert (outcome.kind, outcome.fault.type) == ("not_invoked", "TooLate")
        assert not (tmp_path / "called").exists()
        assert (await invoke(handler, a_call())).kind == "ok"
        assert (tmp_path / "called").read_text() == "x"


INIT_ERROR = """
ask("POST", "/init/error", json.dumps({"errorMessage": "no module named app", "errorType": "TYPE", "stackTrace": []}))
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            INIT_ERROR.replace("TYPE", "Runtime.ImportModuleError"),
            HandlerImportError,
            "handler.command './bootstrap': Runtime.ImportModuleError: no module named app",
        ),
        (INIT_ERROR.replace("TYPE", "EndpointConnectionError"), HandlerImportMayPass, "EndpointConnectionError"),
        ("sys.exit(4)", HandlerImportError, "the worker process ended during the import: exit status 4"),
        ("time.sleep(600)", HandlerImportMayPass, "did not end within 1 s"),
    ],
    ids=["init error", "no network", "exits", "hangs"],
)
async def test_a_start_that_fails_is_told_once_and_clearly(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    command = write_program(tmp_path, text)
    timeout = 1.0 if "within" in message else 30.0
    with pytest.raises(error, match=re.escape(message)) as raised:
        async with running_program(command, tmp_path, processes=2, import_timeout=timeout):
            pass
    assert type(raised.value) is error
    assert not children("bootstrap")


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HandlerImportMayPass, match=r"handler\.command './gone': no worker process can be started"):
        async with running_program(("./gone",), tmp_path):
            pass


async def test_an_endpoint_answers_its_own_process_only(tmp_path: Path) -> None:
    """Also not another process of the same user. The right one is not disturbed."""
    command = write_program(tmp_path, "print(os.environ['AWS_LAMBDA_RUNTIME_API'], flush=True)\nrun(lambda *_: None)")
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            await eventually(lambda: bool(lines(logs)))
            url = f"http://{lines(logs)[0]['line']}/2018-06-01/runtime/invocation/next"

            def steal() -> int:
                try:
                    with urllib.request.urlopen(url, timeout=5) as answer:
                        return int(answer.status)
                except urllib.error.HTTPError as error:
                    return error.code

            assert await asyncio.to_thread(steal) == 403
            assert (await invoke(handler, a_call())).kind == "ok"
    assert [entry for entry in logs if entry["event"] == "handler.stranger_refused"]


async def test_programs_of_the_program_may_ask_for_it(tmp_path: Path) -> None:
    """A shell script or npx that starts the runtime."""
    write_program(tmp_path, "run(lambda event, headers: print('here'))", "inner")
    script = tmp_path / "outer.sh"
    script.write_text("#!/bin/sh\n./inner\n")
    script.chmod(0o755)
    async with running_program(("./outer.sh",), tmp_path) as handler:
        assert (await invoke(handler, a_call())).kind == "ok"


async def test_what_is_not_the_call_under_way_is_refused(tmp_path: Path) -> None:
    """An answer that comes twice, or for a call that is over, changes nothing."""
    command = write_program(
        tmp_path,
        """
        said = []
        def handle(event, headers):
            said.append(ask("POST", "/invocation/other/response", "{}")[0].status)
            said.append(ask("POST", "/invocation/other/error", "{}")[0].status)
            said.append(ask("POST", "/restore/error", "{}")[0].status)
            numbers = [record["dynamodb"]["SequenceNumber"] for record in event["Records"]]
            return {"batchItemFailures": [{"itemIdentifier": number} for number in numbers]}
        answer, event = ask("GET", "/invocation/next")
        request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        result = handle(json.loads(event), answer.headers)
        said.append(ask("POST", f"/invocation/{request_id}/response", json.dumps(result))[0].status)
        said.append(ask("POST", f"/invocation/{request_id}/response", "null")[0].status)
        print(said, flush=True)
        run(handle)
        """,
    )
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            outcome = await invoke(handler, a_call())
            assert (outcome.kind, outcome.failed) == ("partial", (number(0),))
            await eventually(lambda: bool(lines(logs)))
    assert lines(logs)[0]["line"] == "[400, 400, 404, 202, 400]"


async def test_a_runtime_that_asks_before_it_answers_has_failed_the_call(tmp_path: Path) -> None:
    command = write_program(tmp_path, "ask('GET', '/invocation/next')\nrun(lambda event, headers: None)")
    async with running_program(command, tmp_path) as handler:
        outcome = await invoke(handler, a_call())
        assert (outcome.kind, outcome.fault.type) == ("failed", "Runtime.ProtocolError")
        assert (await invoke(handler, a_call())).kind == "ok"


async def test_cancelling_a_call_kills_the_program(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        def handle(event, headers):
            open("pid", "w").write(str(os.getpid()))
            time.sleep(600)
        run(handle)
        """,
    )
    async with running_program(command, tmp_path) as handler:
        running = asyncio.create_task(invoke(handler, a_call(timeout=60.0)))
        await eventually(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_close_asks_with_sigterm_first(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        import signal
        def stop(*_):
            open("stopped", "w").write("x")
            os._exit(0)
        signal.signal(signal.SIGTERM, stop)
        run(lambda event, headers: None)
        """,
    )
    started = time.monotonic()
    async with running_program(command, tmp_path) as handler:
        assert (await invoke(handler, a_call())).kind == "ok"
    assert (tmp_path / "stopped").exists()
    assert time.monotonic() - started < 2.0 + handler.close_grace


DAEMON = """
import asyncio, sys
from consumer.handlers.build import pool_of_programs

async def main():
    handler = pool_of_programs(["./bootstrap"], sys.argv[1], processes=2, report_failures=True, application="orders")
    await handler.start()
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_programs_die_with_a_daemon_that_was_killed(tmp_path: Path) -> None:
    """With all that they have started."""
    write_program(
        tmp_path,
        """
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        open("pids", "a").write(f"{os.getpid()} {child.pid} ")
        run(lambda event, headers: None)
        """,
    )
    root = str(Path(__file__).parents[3])
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(tmp_path)], env={**os.environ, "PYTHONPATH": root})

    def pids() -> list[int]:
        file = tmp_path / "pids"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    try:
        await eventually(lambda: len(pids()) == 4, 20.0)
        assert all(alive(pid) for pid in pids())
    finally:
        daemon.kill()
        daemon.wait()
    await eventually(lambda: not any(alive(pid) for pid in pids()))


async def test_processes_are_recycled_as_others(tmp_path: Path) -> None:
    command = write_program(tmp_path, "run(lambda event, headers: print(os.getpid()))")
    with capture_logs() as logs:
        async with running_program(command, tmp_path, max_calls=2) as handler:
            for _ in range(5):
                assert (await invoke(handler, a_call())).kind == "ok"
    pids = [entry["line"] for entry in lines(logs)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


async def test_several_at_a_time(tmp_path: Path) -> None:
    command = write_program(tmp_path, "run(lambda event, headers: time.sleep(0.05))")
    async with running_program(command, tmp_path, processes=4) as handler:
        started = time.monotonic()
        outcomes = await asyncio.gather(*(invoke(handler, a_call()) for _ in range(40)))
        assert {outcome.kind for outcome in outcomes} == {"ok"}
        assert time.monotonic() - started < 40 * 0.05
        assert len(children("bootstrap")) == 4
    assert not children("bootstrap")
