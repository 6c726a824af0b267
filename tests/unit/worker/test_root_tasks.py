"""No root task dies silently, not even during the shutdown."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, cast

import pytest

from consumer.domain.errors import StreamConsumerError
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.settings.model import Settings
from consumer.worker import app
from consumer.worker.app import Daemon, wedged_after
from consumer.worker.coordinator import Coordinator
from consumer.worker.following import Follower
from consumer.worker.reporting import Reporter
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
    keeping: concurrent.futures.Future[None] = concurrent.futures.Future()
    async with asyncio.timeout(10):
        with pytest.raises(StreamConsumerError, match="coordinator"):
            await daemon._live(
                cast("Coordinator", Dying()),
                cast("Reporter", Idle()),
                cast("Follower", Idle()),
                keeping,
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
