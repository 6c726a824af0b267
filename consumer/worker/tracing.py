"""OpenTelemetry spans around the ports, for who asks for them; without that no code of this file is in the way.

A span for every read that brought records, for every handler call, and for everything that is made durable afterwards:
checkpoints and dead letters. None for each record: at 100,000 a second spans would be all that the daemon does. Names
and attributes follow the semantic conventions for messaging, which are still in development.

Where spans go, which are sampled and what the service is called is said by the variables that OpenTelemetry has for it
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, cast

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, use_span

from consumer import __version__
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.lease import LeaseRow
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.windows import WindowState
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.handler import Handler, Reservation
from consumer.ports.leases import LeaseTable
from consumer.ports.source import Page, StreamSource
from consumer.settings.model import Settings
from consumer.worker.context import Ports
from consumer.worker.tasks import beside

SYSTEMS: Final = {"dynamodb": "aws_dynamodb_streams", "kinesis": "aws_kinesis"}
FLUSH: Final = 5.0  # seconds at the end for what was not sent yet


class Tracing:
    """Spans of one worker. ``provider`` is OpenTelemetry's: where they go."""

    def __init__(self, provider: TracerProvider, settings: Settings) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("consumer", __version__)
        self._name = settings.source.name
        self._common = {
            "messaging.system": SYSTEMS[settings.source.kind],
            "messaging.destination.name": self._name,
            "messaging.consumer.group.name": settings.application,
        }

    def around(self, ports: Ports) -> Ports:
        """The same ports, whose use is traced."""
        letters = ports.dead_letters
        return replace(
            ports,
            source=cast("StreamSource", _Source(ports.source, self)),
            store=cast("LeaseTable", _Leases(ports.store, self)),
            handler=cast("Handler", _Handler(ports.handler, self)),
            dead_letters=None if letters is None else cast("DeadLetters", _DeadLetters(letters, self)),
        )

    async def close(self) -> None:
        """Send what was not sent yet, for FLUSH seconds at most: OpenTelemetry takes longer than a stop may, without a
        collector that answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FLUSH):
                await beside("spans", self._provider.shutdown)

    def span(self, operation: str, kind: SpanKind, shard_id: str = "", *, started: float | None = None) -> Span:
        """A span that began ``started`` (Unix seconds), or now. What costs to know is set by the caller, if it is
        recorded."""
        attributes = self._common | {
            "messaging.operation.name": operation,
            "messaging.operation.type": "settle" if operation in ("checkpoint", "dead_letter") else operation,
        }
        if shard_id:
            attributes["messaging.destination.partition.id"] = shard_id
        at = None if started is None else int(started * 1e9)
        return self._tracer.start_span(f"{operation} {self._name}", kind=kind, attributes=attributes, start_time=at)


def start_tracing(settings: Settings) -> Tracing:
    """Spans are sent by OTLP over HTTP, in batches, by a thread of their own. MisconfiguredResource: OpenTelemetry
    refuses one of its variables."""
    try:
        provider = TracerProvider(resource=Resource.create({"service.version": __version__}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise MisconfiguredResource(
            f"tracing.enabled: OpenTelemetry refuses what a variable of the environment (OTEL_*) says: {error}"
            " (correct the variable)"
        ) from error
    return Tracing(provider, settings)


class _Around:
    """A port of which few methods are traced; the others are those of the adapter."""

    def __init__(self, inner: Any, tracing: Tracing) -> None:
        self._inner = inner
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Source(_Around):
    def of(self, stream_id: str) -> _Source:
        return _Source(self._inner.of(stream_id), self._tracing)

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        started = time.time()
        page = cast("Page", await self._inner.get_records(shard_id, iterator, limit))
        if page.records:
            span = self._tracing.span("receive", SpanKind.CLIENT, shard_id, started=started)
            if span.is_recording():
                span.set_attribute("messaging.batch.message_count", len(page.records))
            span.end()
        return page


class _Leases(_Around):
    async def save(self, label: str, held: LeaseRow, window: WindowState | None = None) -> None:
        with _Ended(self._tracing.span("checkpoint", SpanKind.CLIENT, held.shard_id)):
            await self._inner.save(label, held, window)

    async def release(
        self, label: str, held: LeaseRow, to: str | None = None, window: WindowState | None = None
    ) -> None:
        """The last checkpoint of a lease is part of this write."""
        with _Ended(self._tracing.span("checkpoint", SpanKind.CLIENT, held.shard_id)):
            await self._inner.release(label, held, to, window)


class _DeadLetters(_Around):
    async def send(self, document: bytes, *, attributes: Mapping[str, str]) -> None:
        with _Ended(self._tracing.span("dead_letter", SpanKind.CLIENT)) as span:
            span.set_attribute("messaging.message.body.size", len(document))
            await self._inner.send(document, attributes=attributes)


class _Handler(_Around):
    async def reserve(self) -> Reservation:
        return cast("Reservation", _Reservation(await self._inner.reserve(), self._tracing))


class _Reservation(_Around):
    async def run(self, call: HandlerCall) -> Outcome:
        """The span is the current one meanwhile, so that spans of an inline handler are inside of it."""
        span = self._tracing.span("process", SpanKind.CONSUMER, call.shard_id)
        with _Ended(span), use_span(span, record_exception=False, set_status_on_exception=False):
            outcome = cast("Outcome", await self._inner.run(call))
            if span.is_recording():
                span.set_attribute("messaging.batch.message_count", len(call.records))
                span.set_attribute("stream_consumer.attempt", call.attempt)
                span.set_attribute("stream_consumer.outcome", outcome.kind)
                if outcome.fault is not None:
                    span.set_attribute("error.type", outcome.fault.kind)
                    span.set_status(StatusCode.ERROR)
        return outcome


class _Ended:
    """Ends a span with its block, and says which error that ended with. No message: it may hold values of records."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        return self._span

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is not None:
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
