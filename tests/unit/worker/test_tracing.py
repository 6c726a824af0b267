"""Spans of what a worker does with its ports, as an exporter gets them."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from consumer.domain.errors import DependencyError, LeaseLost, MisconfiguredResource
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.ports.source import Page
from consumer.settings.errors import ConfigError
from consumer.settings.load import settings_from
from consumer.settings.model import Settings
from consumer.worker.context import Ports
from consumer.worker.tracing import Tracing, start_tracing
from tests.unit.domain.support import records

SETTINGS: dict[str, Any] = {
    "application": "projector",
    "source": {"table": "orders"},
    "handler": {"kind": "python", "target": "m:h"},
}
CALL = HandlerCall(tuple(records(1, 2)), "r", 3, "projector", "shard-1", 7, 60.0)


@dataclass
class Adapters:
    """All ports in one, which do as they are told."""

    width: int = 4
    pages: list[Page] = field(default_factory=list)
    outcome: Outcome = OK
    error: Exception | None = None
    saved: list[LeaseRow] = field(default_factory=list)
    current: Any = None
    hangs: asyncio.Event | None = None
    destination: str = "arn:aws:sqs:eu-west-1:123456789012:dlq"
    retention: float = 86400.0

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        return self.pages.pop(0)

    def of(self, stream_id: str) -> Adapters:
        return self

    async def reserve(self) -> Reserved:
        return Reserved(self)

    async def save(self, label: str, held: LeaseRow, window: object = None) -> None:
        if self.error is not None:
            raise self.error
        self.saved.append(held)

    async def release(self, label: str, held: LeaseRow, to: str | None = None, window: object = None) -> None:
        assert to == "another"
        await self.save(label, held, window)

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Reserved:
    """A place for a call."""

    adapters: Adapters

    async def run(self, call: HandlerCall) -> Outcome:
        self.adapters.current = trace.get_current_span()
        if self.adapters.hangs is not None:
            self.adapters.hangs.set()
            await asyncio.sleep(60)
        return self.adapters.outcome

    def release(self) -> None:
        self.adapters.width += 1


class World:
    def __init__(self, **provider: Any) -> None:
        self.adapters = Adapters()
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**provider)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        any_port = cast("Any", self.adapters)
        ports = Ports(any_port, any_port, any_port, any_port, any_port, any_port)
        self.ports = Tracing(self.provider, Settings.model_validate(SETTINGS)).around(ports)

    def span(self) -> tuple[ReadableSpan, dict[str, Any]]:
        """The only one, and its attributes; those that all spans have are as they should be."""
        (span,) = self.exporter.get_finished_spans()
        attributes = dict(span.attributes or {})
        assert attributes.pop("messaging.system") == "aws_dynamodb_streams"
        assert attributes.pop("messaging.destination.name") == "orders"
        assert attributes.pop("messaging.consumer.group.name") == "projector"
        return span, attributes


@pytest.fixture
def world() -> World:
    return World()


async def test_a_read_with_records_is_a_span_and_an_empty_one_is_none(world: World) -> None:
    world.adapters.pages = [Page([], "next", 2), Page(records(1, 2, 3), "next", 900)]
    for source in (world.ports.source, world.ports.source.of("another")):
        await source.get_records("shard-1", "it", 1000)
    span, attributes = world.span()
    assert (span.name, span.kind) == ("receive orders", SpanKind.CLIENT)
    assert attributes == {
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.destination.partition.id": "shard-1",
        "messaging.batch.message_count": 3,
    }


async def test_a_call_is_one_span_however_many_records(world: World) -> None:
    reserved = await world.ports.handler.reserve()
    assert await reserved.run(CALL) is OK
    reserved.release()
    span, attributes = world.span()
    assert (span.name, span.kind, span.status.status_code) == ("process orders", SpanKind.CONSUMER, StatusCode.UNSET)
    assert attributes == {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.partition.id": "shard-1",
        "messaging.batch.message_count": 2,
        "stream_consumer.attempt": 3,
        "stream_consumer.outcome": "ok",
    }
    assert world.adapters.current.get_span_context() == span.context, "spans of an inline handler are inside of it"
    assert (world.ports.handler.width, world.adapters.width) == (5, 5)


async def test_a_fault_is_its_kind_and_never_its_message(world: World) -> None:
    world.adapters.outcome = Outcome("failed", fault=HandlerFault("raised", "ValueError", "secret customer"))
    assert await (await world.ports.handler.reserve()).run(CALL) is world.adapters.outcome
    span, attributes = world.span()
    assert attributes["error.type"] == "raised"
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()


@pytest.mark.parametrize("error", [None, LeaseLost("shard-1", 1, "secret"), DependencyError("UpdateItem", "Timeout")])
@pytest.mark.parametrize("how", ["save", "release"])
async def test_a_checkpoint_is_a_span_also_when_it_fails(world: World, how: str, error: Exception | None) -> None:
    row, store = LeaseRow("shard-1"), world.ports.store
    world.adapters.error = error
    writing = store.save("label", row) if how == "save" else store.release("label", row, "another")
    if error is None:
        await writing
        assert world.adapters.saved == [row]
    else:
        with pytest.raises(type(error)):
            await writing
    span, attributes = world.span()
    assert span.name == "checkpoint orders"
    assert attributes["messaging.operation.type"] == "settle"
    assert attributes.get("error.type") == (None if error is None else type(error).__name__)
    assert "secret" not in span.to_json()


async def test_a_dead_letter_is_a_span(world: World) -> None:
    assert world.ports.dead_letters is not None
    assert world.ports.dead_letters.destination == world.adapters.destination
    await world.ports.dead_letters.send(b"{}", attributes={})
    span, attributes = world.span()
    assert span.name == "dead_letter orders"
    assert attributes["messaging.operation.type"] == "settle"


async def test_what_is_not_sampled_is_not_there_and_all_goes_on() -> None:
    world = World(sampler=ALWAYS_OFF)
    world.adapters.pages = [Page(records(1), "next", 300)]
    assert (await world.ports.source.get_records("s", "it", 1)).wire_bytes == 300
    assert await (await world.ports.handler.reserve()).run(CALL) is OK
    assert world.exporter.get_finished_spans() == ()


async def test_a_call_that_is_cancelled_ends_its_span(world: World) -> None:
    started = world.adapters.hangs = asyncio.Event()
    running = asyncio.create_task((await world.ports.handler.reserve()).run(CALL))
    await started.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.span()[1]["error.type"] == "CancelledError"


def test_a_collector_that_hangs_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the end of the spans nor that of the loop, which waits for threads of its own."""
    monkeypatch.setattr("consumer.worker.tracing.FLUSH", 0.2)
    called, answers, gave_up = threading.Event(), threading.Event(), list[bool]()

    class Hanging(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            called.set()
            if not answers.wait(20):
                gave_up.append(True)
            return SpanExportResult.FAILURE

    async def work() -> None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Hanging()))
        tracing = Tracing(provider, Settings.model_validate(SETTINGS))
        tracing.span("receive", SpanKind.CLIENT).end()
        await tracing.close()

    asyncio.run(work())
    assert called.is_set()
    assert not gave_up
    answers.set()


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"), ("OTEL_BSP_MAX_QUEUE_SIZE", "100")]
)
def test_a_variable_that_opentelemetry_refuses_is_an_error_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(MisconfiguredResource, match=r"OTEL_.*(many|max_queue_size)"):
        start_tracing(Settings.model_validate(SETTINGS))


def test_without_it_nothing_of_opentelemetry_is_imported() -> None:
    code = "import sys, consumer.worker.app; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_missing_extra_is_an_error_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SETTINGS | {"tracing": {"enabled": True}}
    assert settings_from(config).tracing.enabled

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("consumer.settings.rules.find_spec", missing)
    with pytest.raises(ConfigError, match=r"tracing.enabled: needs OpenTelemetry.*\[otel\]"):
        settings_from(config)
    assert not settings_from(SETTINGS).tracing.enabled
    assert importlib.util.find_spec("opentelemetry.sdk") is not None
