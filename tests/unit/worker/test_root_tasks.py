"""No root task dies silently, not even during the shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import Any, cast

import pytest

from consumer.domain.errors import StreamConsumerError
from consumer.settings.model import Settings
from consumer.worker.app import Daemon
from consumer.worker.coordinator import Coordinator
from consumer.worker.reporting import Reporter


class Dying:
    """A coordinator that dies when it is asked to drain."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def run(self) -> None:
        await self.asked.wait()
        raise RuntimeError("a bug")

    async def drain(self, grace: float) -> None:
        self.asked.set()
        await asyncio.sleep(60)


class Idle:
    async def run(self) -> None:
        await asyncio.sleep(60)


async def test_a_coordinator_that_dies_during_the_drain_fails_the_process() -> None:
    settings: dict[str, Any] = {
        "application": "app",
        "source": {"table": "orders"},
        "handler": {"kind": "python", "target": "m:h"},
    }
    daemon = Daemon(Settings.model_validate(settings))
    daemon._stop.set()
    keeping: concurrent.futures.Future[None] = concurrent.futures.Future()
    async with asyncio.timeout(10):
        with pytest.raises(StreamConsumerError, match="coordinator"):
            await daemon._live(cast("Coordinator", Dying()), cast("Reporter", Idle()), keeping, asyncio.Event())
