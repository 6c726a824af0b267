"""What commands about a fleet work with: the source and the lease table of a configuration, as ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from consumer.aws.adapters import MainAdapters
from consumer.ports.leases import LeaseTable
from consumer.ports.source import StreamSource
from consumer.ports.time import ServiceClock
from consumer.settings.model import Settings
from consumer.worker.clock import HeardClock, SystemClock


@dataclass(frozen=True, slots=True)
class Reach:
    """``sleep`` waits seconds of ``clock``."""

    settings: Settings
    source: StreamSource
    store: LeaseTable
    clock: ServiceClock
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[Reach]:
    """Source and lease table in AWS, while the context is open. Nothing is asked of them yet."""
    clock = HeardClock(SystemClock())
    async with MainAdapters(settings, lambda *_: None, clock) as adapters:
        yield Reach(settings, adapters.source, adapters.store, clock)
