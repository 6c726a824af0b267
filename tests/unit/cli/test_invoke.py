"""``stream-consumer invoke``: one call of the configured handler, and what the daemon would do next."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumer.cli.invoke import invoke
from tests.integration.handlers.runtimes import write_program

CONFIG = {"application": "orders-projector", "source": {"table": "orders"}}


def record(number: int = 1, **image: str) -> dict[str, Any]:
    change = {"SequenceNumber": str(number), "Keys": {"id": {"S": "a"}}}
    return {"eventName": "INSERT", "dynamodb": change | {"NewImage": {k: {"S": v} for k, v in image.items()}}}


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def invoke(
        self, code: str, event: Any, *options: str, handler: dict[str, Any] | None = None, **sections: Any
    ) -> Result:
        (self.path / "app.py").write_text(code)
        (self.path / "event.json").write_text(json.dumps(event))
        config = CONFIG | {"handler": {"target": "app.handler"} | (handler or {})} | sections
        if "command" in config["handler"]:
            del config["handler"]["target"]
        (self.path / "c.yaml").write_text(json.dumps(config))
        files = ["--config", str(self.path / "c.yaml"), "--event", str(self.path / "event.json")]
        return CliRunner().invoke(invoke, [*files, *options])

    def json(self, code: str, event: Any, *options: str, **more: Any) -> tuple[dict[str, Any], int]:
        result = self.invoke(code, event, *options, "--output", "json", **more)
        found: dict[str, Any] = json.loads(result.stdout)
        return found, result.exit_code


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_call_as_the_daemon_makes_it(folder: Folder) -> None:
    code = """
import json
def handler(event, context):
    first = event["Records"][0]
    print(first["eventSourceARN"], context.application, context.attempt, context.shard_id)
    print(context.get_remaining_time_in_millis() // 1000)
    return {"done": len(event["Records"])}
"""
    result = folder.invoke(code, record(id="a"), "--attempt", "3", handler={"timeout": "9s"})
    arn = "arn:aws:dynamodb:us-east-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"
    assert result.stderr == f"{arn} orders-projector 3 shardId-invoke\n8\n"
    shown = {line[:9].strip(): line[9:] for line in result.stdout.splitlines()}
    assert shown.pop("time").endswith(" ms")
    assert shown == {
        "handler": "lambda app.handler",
        "records": "1",
        "note": "made up where a record has none: eventSourceARN",
        "output": "2 lines, on standard error",
        "answer": '{"done": 1}',
        "outcome": "ok",
        "next": "1 record is settled, and in no later call",
    }
    assert result.exit_code == 0


RAISES = "def handler(event, context): raise ValueError('boom')"
NAMES = "def handler(event, context): return {'batchItemFailures': [{'itemIdentifier': n} for n in NUMBERS]}"
LATER = "a record that fails alone is tried again after 200ms, doubling to 30s, "
CUT = "the batch is cut by keys, which spends no retry, until the failing ones stand alone; all others go on"
LOST = "it is lost, with a trace (no destination)"


@pytest.mark.parametrize(
    ("code", "sections", "outcome", "steps"),
    [
        (
            RAISES,
            {},
            "failed",
            [
                CUT,
                "records of one key are cut into halves until one record fails alone",
                f"{LATER}until it expires from the stream, after 24 hours; then {LOST}",
            ],
        ),
        (
            RAISES,
            {
                "batch": {"order": "shard", "parallelization_factor": 1},
                "retry": {"bisect_on_error": False, "max_retry_attempts": 2},
                "on_failure": {"destination": "s3://dead"},
            },
            "failed",
            ["the whole batch is tried again", f"{LATER}2 more times; then its dead letter goes to s3://dead"],
        ),
        (
            RAISES,
            {"retry": {"max_retry_attempts": 0, "bisect_on_error": False}},
            "failed",
            [
                CUT,
                f"a record that failed alone has no retry left: {LOST}",
            ],
        ),
        (
            NAMES.replace("NUMBERS", "'2'"),
            {"retry": {"max_record_age": "1h"}},
            "partial",
            [
                "tried again: 2 and the later records of its key; 1 record is settled, those before it",
                "the others behind it are called at once, without that key: the function may have stopped there",
                f"{LATER}until it expires, or is 1h old; then {LOST}",
            ],
        ),
        (
            NAMES.replace("NUMBERS", "'23'"),
            {"retry": {"max_retry_attempts": 1}},
            "partial",
            [
                "tried again: 2, 3 and the later records of their keys; all others are settled",
                f"{LATER}1 more time; then {LOST}",
            ],
        ),
        (
            NAMES.replace("NUMBERS", "'32'"),
            {"batch": {"order": "shard", "parallelization_factor": 1}, "retry": {"max_retry_attempts": 1}},
            "partial",
            [
                "1 record is settled, those before 2; the others are tried again, as a new batch",
                f"{LATER}1 more time; then {LOST}",
            ],
        ),
    ],
)
def test_what_would_come_next(
    folder: Folder, code: str, sections: dict[str, Any], outcome: str, steps: list[str]
) -> None:
    found, exit_code = folder.json(code, [record(number) for number in (1, 2, 3)], **sections)
    assert (found["outcome"], found["next"], exit_code) == (outcome, steps, 1)


def test_errors_and_their_stack_are_shown(folder: Folder) -> None:
    found, _ = folder.json(RAISES, record())
    assert (found["error"]["type"], found["error"]["message"], found["answer"]) == ("ValueError", "boom", None)
    assert "app.py" in found["error"]["stack"][0]
    text = folder.invoke(RAISES, record()).stdout
    assert "\nerror    ValueError: boom\n" in text
    assert "raise ValueError('boom')" in text


def test_a_time_out_is_the_end_of_the_call(folder: Folder) -> None:
    code = "import time\ndef handler(event, context): time.sleep(60)"
    found, exit_code = folder.json(code, record(), handler={"timeout": "300ms"})
    assert (found["error"]["type"], exit_code) == ("Sandbox.Timedout", 1)


def test_filters_count(folder: Folder) -> None:
    paid = [{"dynamodb": {"NewImage": {"status": {"S": ["paid"]}}}}]
    code = "def handler(event, context): print(len(event['Records']))"
    found, exit_code = folder.json(code, [record(1, status="paid"), record(2, status="late")], filters=paid)
    assert (found["records"], found["filtered"], found["lines"][0]["line"], exit_code) == (2, 1, "1", 0)
    result = folder.invoke("raise SystemExit", record(status="late"), filters=paid)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "next     nothing is called: all records are filtered" in result.stdout


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_python_handlers(folder: Folder, isolation: str) -> None:
    code = "async def handle(records, context):\n    print(records[0].new_image['id'])\n    return [records[1]]"
    handler = {"kind": "python", "target": "app:handle", "isolation": isolation}
    found, exit_code = folder.json(code, [record(1, id="x"), record(2)], handler=handler)
    assert (found["failed"], found["lines"], exit_code) == (["2"], [{"stream": "stdout", "line": "x"}], 1)
    assert found["next"][0] == "tried again: 2 and the later records of their keys; all others are settled"


def test_programs(folder: Folder) -> None:
    command = write_program(folder.path, "run(lambda event, headers: len(event['Records']))")
    found, exit_code = folder.json("", record(), handler={"command": list(command)})
    assert (found["answer"], found["outcome"], exit_code) == ("1", "ok", 0)


@pytest.fixture
def endpoint() -> Iterator[str]:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"thank you")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the base class has it
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_endpoints(folder: Folder, endpoint: str) -> None:
    found, exit_code = folder.json("", record(), handler={"kind": "http", "target": endpoint})
    assert (found["answer"], found["outcome"], exit_code) == ("thank you", "ok", 0)
    closed = {"kind": "http", "target": "http://127.0.0.1:9/"}
    found, exit_code = folder.json("", record(), handler=closed)
    assert (found["outcome"], exit_code) == ("not_invoked", 1)
    assert found["next"] == ["the call is repeated after 200ms, and no retry is spent: user code did not run"]


def test_a_window_is_open(folder: Folder) -> None:
    code = "def handler(event, context):\n    print(event['window']['start'])\n    return {'state': {'n': 1}}"
    event = record() | {"dynamodb": {"ApproximateCreationDateTime": 1789651659.0, "SequenceNumber": "1"}}
    found, exit_code = folder.json(code, event, batch={"tumbling_window": "60s", "parallelization_factor": 1})
    assert (found["lines"][0]["line"], exit_code) == ("2026-09-17T13:27:00Z", 0)
    assert found["next"] == ["1 record is settled, and in no later call, and the state of the window is stored"]


def test_a_dead_letter_is_an_event(folder: Folder) -> None:
    letter = {"DDBStreamBatchInfo": {}, "payload": {"Records": [record(1), record(2)]}}
    found, _ = folder.json("def handler(event, context): pass", letter)
    assert found["records"] == 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "event.json holds an empty object where a record was expected"),
        ([record(1), record(1)], "event.json holds a sequence number twice"),
    ],
)
def test_an_event_that_cannot_be_used(folder: Folder, event: Any, message: str) -> None:
    result = folder.invoke("", event)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_handler_that_cannot_be_started(folder: Folder) -> None:
    result = folder.invoke("import nothing", record())
    assert (result.exit_code, result.stdout) == (78, "")
    assert "app.py:1: ModuleNotFoundError: No module named 'nothing'" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_of_the_handler_reaches_the_terminal_as_control_characters(folder: Folder) -> None:
    result = folder.invoke("def handler(event, context): raise ValueError('\\x1b[31mred')", record())
    assert "\x1b" not in result.stdout
