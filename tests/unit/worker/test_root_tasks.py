"""No root task dies silently, not even during the shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from consumer.domain.errors import StreamConsumerError
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.operate.metrics import Metrics
from consumer.ports import Registration
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.simulated_worker import Scripted
from consumer.worker import app
from consumer.worker.app import Daemon, wedged_after
from consumer.worker.clock import SystemClock, SystemRandomness
from consumer.worker.context import Ports
from consumer.worker.coordinator import Coordinator
from consumer.worker.following import Follower
from consumer.worker.incarnations import Incarnations
from tests.unit.worker.harness import World, of, until


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


async def settles(call: HandlerCall) -> Outcome:
    return OK


class Idle:
    async def run(self) -> None:
        await asyncio.sleep(60)


async def test_a_coordinator_that_dies_during_the_drain_fails_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "configure_logging", lambda *_, **__: None)
    settings: dict[str, Any] = {
        "application": "app",
        "source": {"table": "orders"},
        "handler": {"kind": "python", "target": "m:h"},
    }
    daemon = Daemon(Settings.model_validate(settings))
    daemon._stop.set()
    clock, stream = SystemClock(), MemoryStream(SystemClock())
    source, store = MemoryStreamSource(stream), MemoryLeaseStore(MemoryTable(), "app", clock.wall)
    ports = Ports(source, store, Scripted(settles), None, clock, SystemRandomness())
    description, start = await source.describe(), Registration(stream.arn, None)
    incarnations = Incarnations(daemon._host(), daemon._settings, ports, store, Metrics(), description, start)
    async with asyncio.timeout(10):
        with pytest.raises(StreamConsumerError, match="coordinator"):
            await incarnations._live(
                cast("Coordinator", Dying()),
                Idle().run(),
                cast("Follower", Idle()),
                asyncio.get_running_loop().create_future(),
                asyncio.Event(),
            )


@pytest.mark.parametrize("times", [1, 2])
async def test_two_memory_errors_end_the_process(make_world: Callable[..., World], times: int) -> None:
    """One is survived like any failure of a shard; a second one means that the process has grown too large."""
    world, left = make_world(), times

    async def hungry(call: HandlerCall) -> Outcome:
        nonlocal left
        assert of(call)
        if left:
            left -= 1
            raise MemoryError
        return OK

    world.write(3)
    worker = await world.worker("a", hungry)
    if times == 1:
        await until(world.everything_handled)
        return
    await until(worker.running.done)
    error = worker.running.exception()
    assert isinstance(error, ExceptionGroup)
    assert error.subgroup(MemoryError) is not None


@pytest.mark.parametrize(
    ("handler", "seconds"),
    [
        ({"kind": "python", "isolation": "inline", "timeout": "2s"}, 15.0),
        ({"kind": "python", "isolation": "inline", "timeout": "60s"}, 120.0),
        ({"kind": "python", "isolation": "process", "timeout": "300s"}, 60.0),
        ({"kind": "lambda", "timeout": "900s"}, 60.0),
    ],
)
def test_when_the_main_loop_counts_as_wedged(handler: dict[str, str], seconds: float) -> None:
    """Only an inline handler may block it, for its own time-out."""
    settings: dict[str, Any] = {
        "application": "app",
        "source": {"table": "orders"},
        "handler": {"target": "m:h", **handler},
    }
    assert wedged_after(Settings.model_validate(settings)) == seconds
