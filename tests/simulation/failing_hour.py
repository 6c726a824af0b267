"""An hour with keys that fail for ever, at default settings: 4 shards, 200 keys, 80 writes a second.

None of the other keys notices. ``python -m tests.simulation.failing_hour`` runs every variation (``make soak`` does);
``--minutes`` makes it shorter, ``--only`` picks one.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.testing.history import History
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import Scripted
from consumer.testing.simulation import Simulation
from consumer.worker.memory_budget import PAGE_RESERVE, SMALL

SHARDS, KEYS, WRITES = 4, 200, 80.0
PROMPT = 2.0  # seconds from a write to its end, for the keys that do not fail
CALL = 0.005  # seconds
CAUGHT_UP_WITHIN = 900.0


@dataclass(frozen=True)
class Variation:
    """``events``: what happens to the fleet, one after the other, evenly over the time."""

    failing: int = 1
    hot: float = 0.0  # writes a second of the first failing key, beside the others
    refused: bool = False
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    events: tuple[str, ...] = ()


VARIATIONS: dict[str, Variation] = {
    "one key": Variation(),
    "fifty keys": Variation(failing=50),
    "a hot key": Variation(hot=60.0),
    "a refused destination": Variation(failing=5, refused=True, config={"retry": {"max_retry_attempts": 2}}),
    "the smallest buffer": Variation(hot=60.0, config={"limits": {"buffer": "1MiB"}}),
    "crashes, splits and hand-overs": Variation(
        failing=3, events=("crash", "split", "deploy", "roll", "join", "crash")
    ),
}


class FailingHandler:
    """Every call that has a record of a failing key fails as a whole."""

    def __init__(self, failing: set[str]) -> None:
        self.failing = failing

    async def invoke(self, call: HandlerCall) -> Outcome:
        await asyncio.sleep(CALL)
        if any(record.keys["id"] in self.failing for record in call.records):
            return Outcome("failed", fault=HandlerFault("raised", "ValueError", "it fails for ever"))
        return OK


def run(name: str, minutes: float = 60.0, seed: int = 1) -> tuple[History, dict[str, float]]:
    """One variation. Returns the history and what was measured: the most bytes held, and seconds to catch up."""
    variation = VARIATIONS[name]
    world = Simulation(f"{name}/{seed}", shards=SHARDS, config=variation.config)
    failing = {f"k{number}" for number in range(variation.failing)}
    handler = FailingHandler(set(failing))
    measured: dict[str, float] = {"most_bytes": 0.0}

    async def scenario(world: Simulation) -> None:
        for number in range(2):
            world.add_worker(f"w{number}", Scripted(handler.invoke)).start()
        await world.until(world.balanced, 60.0, "the first balance")
        if variation.refused:
            _refuse(world, Weather(throttle=1.0))
        writing = [asyncio.create_task(_write(world, WRITES, KEYS)), asyncio.create_task(_watch(world, measured))]
        if variation.hot:
            writing.append(asyncio.create_task(_write(world, variation.hot, 1)))
        part = minutes * 60.0 / (len(variation.events) + 1)
        for event in (*variation.events, ""):
            world.checkers.expect_prompt(PROMPT, failing)
            await asyncio.sleep(part)
            world.checkers.check_prompt()
            world.checkers.expect_prompt(math.inf, failing)
            if event:
                await EVENTS[event](world)
                await world.until(world.balanced, 60.0, "balance")
                await asyncio.sleep(45.0)
        for task in writing:
            task.cancel()
        handler.failing.clear()
        if variation.refused:
            _refuse(world, Weather())
        mended = world.loop.now
        await world.until(world.everything_settled, CAUGHT_UP_WITHIN, "everything settled")
        measured["caught_up_after"] = world.loop.now - mended
        await world.until(lambda: not any(row.frontier.deferred for row in world.rows().values()), 60.0, "caught up")
        await world.finish()
        if not variation.events:
            for duplicate in world.history.duplicates[:3]:
                world.history.violated("G5 duplicates", f"{duplicate.item.key} v{duplicate.item.version} was repeated")

    return world.run(scenario), measured


async def _write(world: Simulation, rate: float, keys: int) -> None:
    number = 0
    while True:
        await asyncio.sleep(1.0 / rate)
        world.put(f"k{number % keys}", text="x" * 200)
        number += 1


async def _watch(world: Simulation, measured: dict[str, float]) -> None:
    """What a process holds stays within its bound: the buffer, and a page and what failing keys may hold a shard."""
    buffer = world.settings.limits.buffer
    while True:
        await asyncio.sleep(1.0)
        for worker in world.workers.values():
            if worker.context is None or worker.coordinator is None or not worker.running:
                continue
            used, shards = worker.context.budget.used, len(list(worker.coordinator.workers))
            measured["most_bytes"] = max(measured["most_bytes"], used)
            page = min(PAGE_RESERVE, buffer // 4)
            most = buffer + shards * (2 * page + min(SMALL, page) + buffer // 8 + buffer // 16)
            if used > most:
                world.history.violated("byte budget", f"{worker.name} holds {used} bytes, not {most}")


def _refuse(world: Simulation, weather: Weather) -> None:
    for worker in world.workers.values():
        worker.links["dead_letters"].weather = weather


async def _crash(world: Simulation) -> None:
    worker = world.workers["w0"]
    worker.kill()
    worker.start()


async def _deploy(world: Simulation) -> None:
    for worker in list(world.workers.values()):
        await worker.stop()
        worker.start()
        await world.until(world.balanced, 60.0, "balance in a deploy")


async def _join(world: Simulation) -> None:
    world.add_worker("w2", world.workers["w0"].handler).start()


async def _roll(world: Simulation) -> None:
    world.stream.roll(world.stream.shard_of("k0"))


async def _split(world: Simulation) -> None:
    world.stream.split(world.stream.shard_of("k1"))


EVENTS: dict[str, Callable[[Simulation], Awaitable[None]]] = {
    "crash": _crash,
    "deploy": _deploy,
    "join": _join,
    "roll": _roll,
    "split": _split,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.failing_hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="of virtual time (default 60)")
    parser.add_argument("--only", choices=VARIATIONS, help="one variation")
    options = parser.parse_args()
    failed = 0
    for name in [options.only] if options.only else VARIATIONS:
        began = time.monotonic()
        history, measured = run(name, options.minutes)
        shown = "  ".join(f"{what}={value:,.1f}" for what, value in measured.items())
        print(f"{name}: {len(history.items):,} records, {shown} [{time.monotonic() - began:.0f} s]", flush=True)
        for violation in history.violations[:5]:
            print(f"  {violation}")
        failed += bool(history.violations)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
