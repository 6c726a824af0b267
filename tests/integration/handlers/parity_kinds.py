"""The ways to run the one function of ``tests/functions``: each with what the parity suite has to know of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from aiohttp import web

from consumer.ports.handler import Handler
from tests.functions import python_function
from tests.functions.commands import FOLDER, awslambdaric, go, java, node, runtime_python, rust
from tests.integration.handlers.http_servers import serving, started
from tests.integration.handlers.runtimes import running_program
from tests.integration.handlers.support import running

TARGET = "python_function.handler"
Start = Callable[..., contextlib.AbstractAsyncContextManager[Handler]]  # of ``report_failures``


@dataclass(frozen=True)
class Kind:
    """``raised`` is the type that it tells of ``fail``; ``place`` is in the first line of its stack, None where it has
    none. ``group``: of xdist, in which things are built once. ``seconds``: the longest time of a test, with
    its building."""

    name: str
    start: Start
    raised: str = "ValueError"
    place: str | None = "python_function.py"
    group: str = ""
    seconds: int = 180

    def __str__(self) -> str:
        return self.name


def _built_in(**options: Any) -> Any:
    return running(str(FOLDER), target=TARGET, **options)


def _other_python(**options: Any) -> Any:
    return running(str(FOLDER), target=TARGET, python=runtime_python(), **options)


def _program(command: Callable[[], tuple[str, ...]]) -> Start:
    return lambda **options: running_program(command(), FOLDER, **options)


def _node(**options: Any) -> Any:
    command = node()
    return running_program(command, Path(command[0]).parents[2], **options)


@asynccontextmanager
async def _http(**options: Any) -> AsyncIterator[Handler]:
    async with serving(_answer) as url, started(url, **options) as handler:
        yield handler


class _HeaderContext:
    """What a server that calls a function can know of the call."""

    invoked_function_arn = ""

    def __init__(self, headers: Any) -> None:
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        return self._deadline - int(python_function.time.time() * 1000)


async def _answer(request: web.Request) -> web.StreamResponse:
    """A server around the function that says an error as AWS's containers do. What would end a process ends the
    connection, and what hangs waits for its end."""
    event = await request.json()
    image = event["Records"][0]["dynamodb"]["NewImage"]
    do = image["do"]["S"]
    if do in ("exit", "kill") and request.transport is not None:
        request.transport.abort()
    if do not in ("", "partial", "answer", "fail", "large", "context"):  # the rest is about processes: not in this one
        await asyncio.Event().wait()
    if do == "answer":  # as it is, and not once around a parser
        return web.Response(text=image["answer"]["S"])
    try:
        return web.json_response(python_function.handler(event, _HeaderContext(request.headers)))
    except ValueError as error:
        said = {"errorMessage": str(error), "errorType": type(error).__name__}
        place = [f"  File {python_function.__file__}"]
        return web.json_response(said | {"stackTrace": place}, headers={"X-Amz-Function-Error": "Unhandled"})


BUILT_IN = Kind("lambda", _built_in, group="parity lambda")
OTHER_PYTHON = Kind("lambda, other python", _other_python, group="parity other python")
AWSLAMBDARIC = Kind("awslambdaric", _program(lambda: awslambdaric(TARGET)), group="parity awslambdaric")
GO = Kind("aws-lambda-go", _program(go), "errorString", None, group="real runtimes")
HTTP = Kind("http", _http, group="parity http")
# Built only when asked for.
RUST = Kind(
    "lambda_runtime",
    _program(rust),
    "&alloc::boxed::Box<dyn core::error::Error + core::marker::Send + core::marker::Sync>",
    None,
    group="parity rust",
    seconds=900,
)
JAVA = Kind(
    "java", _program(java), "java.lang.IllegalArgumentException", "Handler.java", group="parity java", seconds=900
)
NODE = Kind("aws-lambda-ric", _node, "Error", "index.js", group="parity node", seconds=900)
KINDS = (BUILT_IN, OTHER_PYTHON, AWSLAMBDARIC, GO, HTTP, RUST, JAVA, NODE)
OF_PYTHON = (BUILT_IN, OTHER_PYTHON, AWSLAMBDARIC)  # they run what is in ``code``


class Subject:
    """A kind with its handlers, one for each value of ``report_batch_item_failures``, started when asked for."""

    def __init__(self, kind: Kind, stack: AsyncExitStack) -> None:
        self.kind = kind
        self._stack = stack
        self._handlers: dict[bool | None, Handler] = {}

    async def handler(self, report_failures: bool | None = True) -> Handler:
        if report_failures not in self._handlers:
            start = self.kind.start(report_failures=report_failures)
            self._handlers[report_failures] = await self._stack.enter_async_context(start)
        return self._handlers[report_failures]


@asynccontextmanager
async def subject_of(kind: Kind) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        # Whoever runs the tests may have a journal or a function of its own in the environment.
        clean = {name: value for name, value in os.environ.items() if name != "JOURNAL" and "LAMBDA" not in name}
        stack.enter_context(mock.patch.dict(os.environ, clean, clear=True))
        yield Subject(kind, stack)


def params(kinds: Iterable[Kind] = KINDS) -> list[Any]:
    """Of the fixture: each in a group of xdist, so that it is started once."""
    return [
        pytest.param(kind, id=kind.name, marks=[pytest.mark.xdist_group(kind.group), pytest.mark.timeout(kind.seconds)])
        for kind in kinds
    ]
