"""Worlds for worker tests: closed and checked at the end of each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from consumer.worker.fleet import coordinator, shard_discovery
from consumer.worker.shard import reader
from tests.unit.worker.harness import World


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polling pauses that are billed on AWS cost nothing here."""
    monkeypatch.setattr(reader, "PARTIAL_PAGE_PAUSE", 0.005)
    monkeypatch.setattr(reader, "FIRST_IDLE_PAUSE", 0.01)
    monkeypatch.setattr(shard_discovery, "FIRST_CHILD_PAUSE", 0.02)
    monkeypatch.setattr(shard_discovery, "SECOND_LOOK", 0.1)
    monkeypatch.setattr(coordinator, "RESTART_PAUSE", 0.2)


@pytest.fixture
async def make_world() -> AsyncIterator[Callable[..., World]]:
    """``make_world(shards=2, ...)``: afterwards no worker may still hold budget or count records in flight."""
    worlds: list[World] = []

    def make(**options: Any) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()
