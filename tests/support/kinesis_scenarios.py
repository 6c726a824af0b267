"""What the step-by-step tests on a simulated Kinesis stream share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.kinesis_simulation import KinesisSimulation
from consumer.testing.simulated_worker import Scripted

Scenario = Callable[[KinesisSimulation], Coroutine[Any, Any, None]]
DAY = 86400.0
MODES = ("horizon", "stuck", "invalid")  # what a trimmed position answers


class Seen:
    """Records every call: the shard and the versions of items."""

    def __init__(
        self, world: KinesisSimulation, *, workers: int = 1, seconds: float = 0.0, slow: str | None = None
    ) -> None:
        """Calls take so many ``seconds``; those of the shard ``slow`` end when ``mended`` is set; those with an item in
        ``failing`` fail, in these versions."""
        self._world = world
        self._seconds = seconds
        self._slow = slow
        self.mended = asyncio.Event()
        self.failing: Mapping[str, range] = {}
        self.calls: list[tuple[str, list[tuple[str, int]]]] = []
        for number in range(workers):
            world.add_worker(f"w{number}", Scripted(self._behave)).start()

    async def _behave(self, call: HandlerCall) -> Outcome:
        items = [self._world.checkers.item(call.shard_id, one.sequence_number) for one in call.records]
        self.calls.append((call.shard_id, [(item.key, item.version) for item in items]))
        await asyncio.sleep(self._seconds)
        if call.shard_id == self._slow:
            await self.mended.wait()
        failing = any(item.version in self.failing.get(item.key, ()) for item in items)
        return Outcome("failed", fault=HandlerFault("raised", "ValueError", "failing")) if failing else OK

    def versions(self, key: str) -> list[int]:
        return [version for _, items in self.calls for name, version in items if name == key]


def run(scenario: Scenario, **options: Any) -> KinesisSimulation:
    world = KinesisSimulation(**{"seed": 1, **options})
    world.run(scenario)
    world.check()
    return world


async def settled(world: KinesisSimulation) -> None:
    assert await world.until(world.all_put_and_settled, 120.0)
