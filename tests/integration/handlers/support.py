"""Helpers of the handler tests: calls, handler modules on disk, and waiting by polling with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import Raw

from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.record import Change, Record
from consumer.handlers.build import pool_of_workers
from consumer.handlers.process_pool import ProcessPoolHandler
from consumer.ports.handler import Handler

SOURCE_ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T13:26:53.746"


def number(index: int) -> str:
    return str(3_100_000_105_893_955_554_100 + index)


def record(index: int = 0) -> Record:
    return Record(
        dynamodb=Change(
            SequenceNumber=number(index),
            ApproximateCreationDateTime=1_789_651_659.0,
            Keys=Raw(b'{"pk":{"S":"k%d"}}' % index),
            NewImage=Raw(b'{"pk":{"S":"k%d"},"n":{"N":"%d"}}' % (index, index)),
            SizeBytes=80,
            StreamViewType="NEW_AND_OLD_IMAGES",
        ),
        event_id=f"event-{index}",
        event_name="INSERT",
        aws_region="eu-west-1",
        event_source_arn=SOURCE_ARN,
    )


def call(size: int = 1, *, timeout: float = 5.0, attempt: int = 1, request_id: str = "request-1") -> HandlerCall:
    return HandlerCall(
        records=tuple(record(index) for index in range(size)),
        request_id=request_id,
        attempt=attempt,
        application="orders-projector",
        shard_id="shardId-1",
        lease_epoch=7,
        timeout=timeout,
    )


def write_module(folder: Path, text: str, name: str = "app") -> str:
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    return str(folder)


def pool(path: str, kind: Any = "lambda", target: str = "app:handler", **options: Any) -> ProcessPoolHandler:
    chosen: dict[str, Any] = {
        "processes": 1,
        "report_failures": True,
        "application": "orders-projector",
        "region": "eu-west-1",
    } | options
    return pool_of_workers(kind, target, path, **chosen)


@asynccontextmanager
async def running(
    path: str,
    kind: Any = "lambda",
    target: str = "app:handler",
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[ProcessPoolHandler]:
    """A pool that was started; ``environment`` is set in this process meanwhile, as the user's is in the daemon's."""
    with mock.patch.dict(os.environ, environment or {}):
        handler = pool(path, kind, target, **options)
        await handler.start()
        try:
            yield handler
        finally:
            await handler.close()


def children(name: str, parent: int | None = None) -> list[int]:
    """The living child processes of ``parent`` (this process) with ``name`` in their command line."""
    pids: list[int] = []
    for task in Path(f"/proc/{parent or os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            pids += [int(pid) for pid in (task / "children").read_text().split()]
    return sorted(pid for pid in pids if alive(pid) and name.encode() in _command(pid))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def workers(parent: int | None = None) -> list[int]:
    """The worker processes of ``parent`` (this process)."""
    return children("stream-consumer-worker", parent)


async def eventually(check: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {check}"
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Running, and not merely a zombie that waits to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


async def invoke(handler: Handler, one: HandlerCall) -> Outcome:
    """Reserve and run, as the worker does."""
    reserved = await handler.reserve()
    try:
        return await reserved.run(one)
    finally:
        reserved.release()
