"""Lambda code in worker processes: events, output, environment. Answers and errors are in ``test_parity.py``."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from consumer.domain.windows import TimeWindow, WindowCall
from consumer.handlers.output import MAX_LINE
from tests.integration.handlers.support import SOURCE_ARN, call, invoke, number, running, write_module


async def test_the_event_is_lambdas_and_fresh_for_every_call(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import json

        def handler(event, context):
            print(json.dumps(event))
            event["Records"].clear()
            event["mine"] = True
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            batch = call(2)
            for _ in range(2):
                assert (await invoke(handler, batch)).kind == "ok"
    events = [json.loads(entry["line"]) for entry in logs if entry["event"] == "handler.output"]
    assert len(events) == 2
    assert events[0] == events[1] == {"Records": [record.as_event() for record in batch.records]}


async def test_context_and_environment_are_lambdas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_module(
        tmp_path,
        """
        import json, os, sys, time

        def handler(event, context):
            first = context.get_remaining_time_in_millis()
            time.sleep(0.02)
            seen = {name: getattr(context, name) for name in (
                "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "aws_request_id",
                "log_group_name", "log_stream_name", "client_context", "tenant_id",
                "application", "shard_id", "lease_epoch", "attempt")}
            seen["identity"] = [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id]
            seen["hour"] = time.localtime(0).tm_hour
            context.log(f"logged by {context.aws_request_id}")
            seen["remaining"] = [first, context.get_remaining_time_in_millis()]
            seen["env"] = {name: value for name, value in os.environ.items()
                           if name.startswith(("AWS_", "_HANDLER", "POWERTOOLS", "LAMBDA", "TZ"))}
            seen["module"] = handler.__module__
            seen["path"] = sys.path[0]
            print(json.dumps(seen))
        """,
    )
    monkeypatch.delenv("TZ", raising=False)
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call(attempt=3))).kind == "ok"
    logged, line = [entry for entry in logs if entry["event"] == "handler.output"]
    assert (line["request_id"], line["shard_id"], line["stream"]) == ("request-1", "shardId-1", "stdout")
    seen = json.loads(line["line"])
    first, second = seen.pop("remaining")
    assert 4000 < second < first <= 5000
    environment = seen.pop("env")
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == seen["function_name"] == "orders-projector"
    assert environment["_HANDLER"] == "app.handler"
    assert environment["AWS_REGION"] == "eu-west-1"
    assert environment["POWERTOOLS_TRACE_DISABLED"] == "true"
    assert environment["AWS_XRAY_SDK_ENABLED"] == "false"
    assert environment["LAMBDA_TASK_ROOT"] == path
    assert environment["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_python{}.{}".format(*sys.version_info)
    assert (environment["TZ"], seen["hour"]) == (":UTC", 0)
    assert logged["line"] == "logged by request-1"
    assert seen["invoked_function_arn"] == "arn:aws:lambda:eu-west-1:123456789012:function:orders-projector"
    assert seen["log_group_name"] == "/aws/lambda/orders-projector"
    assert (seen["identity"], seen["client_context"], seen["tenant_id"]) == ([None, None], None, None)
    assert (seen["application"], seen["shard_id"], seen["lease_epoch"], seen["attempt"]) == (
        "orders-projector",
        "shardId-1",
        7,
        3,
    )
    assert (seen["module"], seen["path"], seen["aws_request_id"]) == ("app", path, "request-1")
    assert SOURCE_ARN.split(":")[4] in seen["invoked_function_arn"]


async def test_output_is_forwarded_line_by_line_and_cannot_corrupt_the_wire(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import os, sys
        print("importing")

        def handler(event, context):
            print("hello")
            print("no newline", end="")
            sys.stderr.write("careful\\n")
            os.write(1, b"\\x00\\xff binary\\n")
            print("x" * 300_000)
            os.system("echo from a program")
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call())).kind == "ok"
            during = [entry for entry in logs if entry["event"] == "handler.output"]
    assert during[0]["line"] == "importing"
    assert during[0]["request_id"] is None
    rest = during[1:]
    assert {entry["request_id"] for entry in rest} == {"request-1"}
    assert [entry["line"] for entry in rest if entry["stream"] == "stderr"] == ["careful"]
    out = [entry["line"] for entry in rest if entry["stream"] == "stdout"]
    assert out[0] == "hello"
    assert "from a program" in out
    assert any("\\xff binary" in line for line in out)
    assert [len(entry["line"]) for entry in rest if entry.get("truncated")] == [MAX_LINE]


async def test_the_root_logger_is_lambdas(tmp_path: Path) -> None:
    """Lambda's runtime puts a handler on the root logger, so functions only set a level and never configure logging."""
    path = write_module(
        tmp_path,
        """
        import logging

        logging.basicConfig(format="nothing to do: %(message)s")
        logging.getLogger().setLevel(logging.INFO)
        log = logging.getLogger("orders")
        log.info("importing")

        def handler(event, context):
            log.info("%d records", len(event["Records"]))
            log.debug("below the level")
            try:
                raise ValueError("boom")
            except ValueError:
                log.exception("failed")
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call(2))).kind == "ok"
    lines = [entry for entry in logs if entry["event"] == "handler.output"]
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert {entry["stream"] for entry in lines} == {"stdout"}
    assert re.fullmatch(rf"\[INFO\]\t{time}\t\timporting", lines[0]["line"])
    assert re.fullmatch(rf"\[INFO\]\t{time}\trequest-1\t2 records", lines[1]["line"])
    assert re.fullmatch(rf"\[ERROR\]\t{time}\trequest-1\tfailed", lines[2]["line"])
    assert lines[3]["line"] == "Traceback (most recent call last):"
    assert lines[-1]["line"] == "ValueError: boom"
    assert [entry["request_id"] for entry in lines] == [None] + ["request-1"] * (len(lines) - 1)


async def test_embedded_metrics_stay_lines_of_their_own(tmp_path: Path) -> None:
    """CloudWatch takes metrics from a line only if the line is the object."""
    path = write_module(
        tmp_path,
        """
        import json, sys
        METRICS = {"CloudWatchMetrics": [{"Namespace": "shop", "Dimensions": [[]], "Metrics": [{"Name": "orders"}]}]}
        def handler(event, context):
            print(json.dumps({"_aws": METRICS, "orders": len(event["Records"]), "note": "x" * 20_000}))
            no_json = json.dumps({"_aws": METRICS, "n": float("nan")})
            for near in ('{"_aws": 1}', '{"_aws": {}', '["_aws"]', '{"_aws": {}, "event": "shard.paused"}', no_json):
                print(near)
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call(2))).kind == "ok"
    (metrics,) = [entry["verbatim"] for entry in logs if entry["event"] == "handler.metrics"]
    assert (metrics["orders"], len(metrics["note"])) == (2, 20_000)
    assert sum(entry["event"] == "handler.output" for entry in logs) == 5


async def test_what_is_cut_of_a_line_is_said(tmp_path: Path) -> None:
    path = write_module(tmp_path, "def handler(event, context): print('x' * 1_000_000); print('next')")
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call())).kind == "ok"
    lines = [entry for entry in logs if entry["event"] == "handler.output"]
    dropped = [entry for entry in logs if entry["event"] == "handler.output_dropped"]
    assert [(len(entry["line"]), entry.get("truncated", False)) for entry in lines] == [(MAX_LINE, True), (4, False)]
    assert sum(entry["bytes"] for entry in dropped) == 1_000_000 - MAX_LINE


async def test_a_flood_of_output_is_bounded(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        def handler(event, context):
            for n in range(200_000):
                print(n, "some text to make this line longer")
        """,
    )
    with capture_logs() as logs:
        async with running(path) as handler:
            assert (await invoke(handler, call(timeout=8))).kind == "ok"
    lines = sum(entry["event"] == "handler.output" for entry in logs)
    dropped = sum(entry["lines"] for entry in logs if entry["event"] == "handler.output_dropped")
    assert lines < 10_000
    assert dropped > 150_000


async def test_pythonpath_works_and_the_users_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    library.mkdir()
    write_module(library, "VALUE = 5", "shared_library")
    monkeypatch.setenv("PYTHONPATH", str(library))
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "false")
    path = write_module(
        tmp_path,
        """
        import os, shared_library

        def handler(event, context):
            assert shared_library.VALUE == 5
            assert os.environ["POWERTOOLS_TRACE_DISABLED"] == "false"
            assert os.environ["PYTHONPATH"] == os.path.dirname(shared_library.__file__)
        """,
    )
    async with running(path) as handler:
        outcome = await invoke(handler, call())
        assert outcome.kind == "ok", outcome


async def test_files_beside_the_code_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda starts functions in the folder of their code, and they open what lies there; a relative PYTHONPATH of the
    daemon goes on to mean what it meant where the daemon was started."""
    elsewhere, code = tmp_path / "elsewhere", tmp_path / "code"
    (elsewhere / "library").mkdir(parents=True)
    code.mkdir()
    write_module(elsewhere / "library", "VALUE = 5", "shared_library_of_elsewhere")
    (code / "template.txt").write_text("text")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PYTHONPATH", "library")
    path = write_module(
        code,
        """
        import shared_library_of_elsewhere
        AT_IMPORT = open("template.txt").read()

        def handler(event, context):
            assert AT_IMPORT == open("template.txt").read() == "text"
        """,
    )
    async with running(path) as handler:
        outcome = await invoke(handler, call())
        assert outcome.kind == "ok", outcome


POWERTOOLS = """
import json, os
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

processor = BatchProcessor(event_type=EventType.DynamoDBStreams)
logger = Logger(service="orders")

def record_handler(record):
    if record.dynamodb.keys["pk"] in os.environ["BAD"].split(","):
        raise ValueError("bad record")

@logger.inject_lambda_context(clear_state=True)
def handler(event, context):
    logger.info("handling")
    return process_partial_response(event=event, record_handler=record_handler, processor=processor, context=context)
"""


async def test_powertools_unmodified(tmp_path: Path) -> None:
    path = write_module(tmp_path, POWERTOOLS)
    with capture_logs() as logs:
        async with running(path, environment={"BAD": "k1,k3"}) as handler:
            outcome = await invoke(handler, call(5))
            alone = await invoke(handler, call(1))
    assert outcome.kind == "partial", outcome
    assert outcome.failed == (number(1), number(3))
    assert alone.kind == "ok"
    lines = [json.loads(entry["line"]) for entry in logs if entry["event"] == "handler.output"]
    handling = [line for line in lines if line.get("message") == "handling"]
    assert handling[0]["function_request_id"] == "request-1"
    assert handling[0]["function_name"] == "orders-projector"


async def test_a_function_that_knows_no_windows_may_end_one_of_other_settings(tmp_path: Path) -> None:
    """It returns no state, which fails any other call of a window."""
    path = write_module(
        tmp_path,
        """
        def handler(event, context):
            assert event["isFinalInvokeForWindow"] and event["state"] == {"count": 3}
        """,
    )
    window = WindowCall(TimeWindow(60, 120), b'{"count":3}', final=True, terminated_early=True)
    async with running(path) as handler:
        for left_over, kind in ((False, "failed"), (True, "ok")):
            asked = msgspec.structs.replace(call(0), window=replace(window, left_over=left_over))
            assert (await invoke(handler, asked)).kind == kind
