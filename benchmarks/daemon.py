"""The real daemon inside a row's process, with its handler counted from outside."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

from benchmarks.stub_stream import STREAM_ARN
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.handlers.build import build_handler
from consumer.operate.logs import close_logging
from consumer.ports.handler import Handler, Reservation
from consumer.settings.model import Settings
from consumer.worker import app as composition_root


class CountingHandler:
    """Passes everything on; ``on_settled`` gets the size of every batch that succeeded."""

    def __init__(self, inner: Handler, on_settled: Callable[[int], None]) -> None:
        self._inner = inner
        self._on_settled = on_settled

    @property
    def width(self) -> int:
        return self._inner.width

    async def start(self) -> None:
        await self._inner.start()

    async def reserve(self) -> Reservation:
        return _CountingReservation(await self._inner.reserve(), self._on_settled)

    async def close(self) -> None:
        await self._inner.close()


class _CountingReservation:
    def __init__(self, inner: Reservation, on_settled: Callable[[int], None]) -> None:
        self._inner = inner
        self._on_settled = on_settled
        self.release = inner.release

    async def run(self, call: HandlerCall) -> Outcome:
        outcome = await self._inner.run(call)
        if outcome.kind == "ok":
            self._on_settled(len(call.records))
        return outcome


def settings_of(stream: str, table: str, handler: dict[str, Any], **sections: Any) -> Settings:
    """Settings for a daemon on the stub (``stream``) with its lease table on the local AWS (``table``): endpoints."""
    return Settings.model_validate(config_of(stream, table, handler, **sections))


def config_of(stream: str, table: str, handler: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """The same as the mapping that a configuration file holds; ``sections`` replace or add whole sections."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    return {
        "application": name,
        "aws": {"region": "eu-west-1", "endpoints": {"dynamodb": table, "dynamodb_streams": stream}},
        "source": {"stream_arn": STREAM_ARN},
        "handler": {"kind": "python", "isolation": "inline", **handler},
        "leases": {"table": name, "create_table": True},
        "http": {"port": 0},
        "logging": {"level": "error"},
        **sections,
    }


async def run_daemon(settings: Settings, on_settled: Callable[[int], None], stop: asyncio.Event) -> None:
    """Run it until ``stop`` is set."""

    def counting(given: Settings) -> Handler:
        return CountingHandler(build_handler(given), on_settled)

    vars(composition_root)["build_handler"] = counting
    try:
        await composition_root.Daemon(settings).run(stop)
    finally:
        vars(composition_root)["build_handler"] = build_handler
        close_logging()
