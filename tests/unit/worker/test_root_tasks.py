"""No root task dies silently, not even during the shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
import structlog

from consumer.domain.errors import StreamConsumerError
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.operate.metrics import Metrics
from consumer.ports.leases import Registration
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
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.incarnation import Incarnations
from consumer.worker.fleet.stream_replacement import Follower
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


async def test_a_helper_that_is_cancelled_by_nobody_ends_the_coordinator(make_world: Callable[..., World]) -> None:
    """A TaskGroup would forget it, and nobody would announce anything any more."""
    world = make_world()
    worker = await world.worker("a")

    async def announce(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    await until(lambda: len(world.owners()) == 1)
    worker.store.announce = announce  # type: ignore[method-assign]
    worker.coordinator._announce.set()
    await until(worker.running.done)
    error = worker.running.exception()
    assert isinstance(error, ExceptionGroup)
    assert "announcements was cancelled by nobody" in str(error.exceptions)


@pytest.mark.parametrize("operation", ["save", "get_records"])
async def test_a_shard_whose_work_is_cancelled_by_nobody_starts_again(
    make_world: Callable[..., World], operation: str
) -> None:
    """Neither its reader nor its checkpoints may be missing from then on; the log says so."""
    world, left = make_world(), [1]
    world.write(3)
    worker = await world.worker("a", None)
    port: Any = worker.store if operation == "save" else worker.context.ports.source
    honest = getattr(port, operation)

    async def once(*given: Any, **named: Any) -> Any:
        if left:
            left.pop()
            raise asyncio.CancelledError
        return await honest(*given, **named)

    await until(world.everything_handled)
    setattr(port, operation, once)
    with structlog.testing.capture_logs() as logs:
        world.write(3)
        await until(lambda: any(entry["event"] == "shard.worker_failed" for entry in logs))
        await until(world.everything_handled)
        await until(lambda: all(row.frontier.low is not None for row in world.rows().values()))


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
