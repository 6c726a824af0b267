"""One function as the built-in kind runs it, and as AWS's own runtime clients do: all of them count the same."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from structlog.testing import capture_logs

from consumer.handlers.process_pool import ProcessPoolHandler
from tests.functions.commands import FOLDER, RUNTIMES
from tests.integration.handlers.runtimes import running_program
from tests.integration.handlers.support import call, invoke, number, record, running

KINDS = ("built-in", *RUNTIMES)
pytestmark = pytest.mark.xdist_group("real runtimes")  # the Go function is built once


@pytest.fixture(params=KINDS)
async def function(request: pytest.FixtureRequest) -> AsyncIterator[ProcessPoolHandler]:
    if request.param == "built-in":
        async with running(str(FOLDER), target="python_function:handler") as handler:
            yield handler
    else:
        async with running_program(RUNTIMES[request.param](), FOLDER) as handler:
            yield handler


def asking(*what: str, timeout: float = 10.0) -> Any:
    """A call with one record for each of them."""
    records = []
    for index, do in enumerate(what):
        one = record(index)
        image = Raw(msgspec.json.encode({"pk": {"S": f"k{index}"}, "do": {"S": do}}))
        records.append(msgspec.structs.replace(one, dynamodb=msgspec.structs.replace(one.dynamodb, NewImage=image)))
    one_call = msgspec.structs.replace(call(timeout=timeout), records=tuple(records))
    return msgspec.structs.replace(one_call, request_id=str(uuid.uuid4()))


async def test_success_and_what_is_printed(function: ProcessPoolHandler) -> None:
    with capture_logs() as logs:
        for _ in range(3):
            one = asking("", "")
            assert (await invoke(function, one)).kind == "ok"
            (line,) = [
                entry for entry in logs if entry["event"] == "handler.output" and one.request_id in entry["line"]
            ]
            assert (line["request_id"], line["shard_id"]) == (one.request_id, "shardId-1")


async def test_partial_failures(function: ProcessPoolHandler) -> None:
    outcome = await invoke(function, asking("", "partial", "", "partial"))
    assert (outcome.kind, outcome.failed, outcome.exact) == ("partial", (number(1), number(3)), True)


async def test_errors(function: ProcessPoolHandler) -> None:
    for _ in range(2):
        fault = (await invoke(function, asking("fail"))).fault
        assert fault is not None
        assert (fault.kind, fault.message) == ("raised", "no such order")
        assert fault.type in ("ValueError", "errorString")
    assert (await invoke(function, asking(""))).kind == "ok"


async def test_time_outs(function: ProcessPoolHandler) -> None:
    fault = (await invoke(function, asking("hang", timeout=0.5))).fault
    assert fault is not None
    assert (fault.kind, fault.type) == ("timeout", "Sandbox.Timedout")
    assert (await invoke(function, asking(""))).kind == "ok"


async def test_ends(function: ProcessPoolHandler) -> None:
    fault = (await invoke(function, asking("exit"))).fault
    assert fault is not None
    assert (fault.kind, fault.type) == ("crashed", "Runtime.ExitError")
    assert (await invoke(function, asking(""))).kind == "ok"


async def test_the_function_has_a_boto3_of_its_own() -> None:
    import boto3

    with capture_logs() as logs:
        async with running_program(RUNTIMES["awslambdaric"](), FOLDER) as handler:
            assert (await invoke(handler, asking(""))).kind == "ok"
    (line,) = [entry["line"] for entry in logs if entry["event"] == "handler.output" and "boto3" in entry["line"]]
    assert line.split()[1] == "1.43.127" != boto3.__version__


async def test_a_module_that_cannot_be_imported_is_named() -> None:
    from consumer.domain.errors import HandlerImportError

    command = (*RUNTIMES["awslambdaric"]()[:-1], "no_such_module.handler")
    with pytest.raises(HandlerImportError, match=r"Runtime\.ImportModuleError: .*no_such_module"):
        async with running_program(command, FOLDER):
            pass
