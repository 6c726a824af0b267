"""Tumbling windows in simulated workers: a handler that aggregates, and records at chosen times."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Awaitable, Callable
from typing import Any

from consumer.domain.outcome import OK, HandlerCall, Outcome, from_window_response
from consumer.testing.simulation import Simulation
from consumer.testing.virtual_loop import EPOCH
from tests.support.simulated_shards import FAILED, Recorder, append, shard_world, until

NOON = int(EPOCH) + 3600  # the start of a window of a minute that is not over while a test runs
NO_WINDOW = -1


class Counting(Recorder):
    """A Lambda-style aggregation: the state counts the records of the window; every event is kept."""

    def __init__(self, around: Callable[[HandlerCall, Outcome], Awaitable[Outcome]] | None = None) -> None:
        """``around`` is given every call with its outcome and returns the one that counts."""
        super().__init__(self._count)
        self.events: list[dict[str, Any]] = []
        self.fail: Callable[[dict[str, Any]], bool] = lambda event: False
        self.padding = 0
        self._around = around

    async def _count(self, call: HandlerCall) -> Outcome:
        event = json.loads(call.event())
        self.events.append(event)
        outcome = FAILED if self.fail(event) else OK if call.window is None else self._aggregate(call, event)
        return outcome if self._around is None else await self._around(call, outcome)

    def _aggregate(self, call: HandlerCall, event: dict[str, Any]) -> Outcome:
        state = {"count": event["state"].get("count", 0) + len(event["Records"])}
        if self.padding and event["Records"]:
            state["padding"] = "x" * self.padding
        return answer(call, {"state": state})

    @property
    def shapes(self) -> list[tuple[int, int, bool]]:
        """Of each call: the minute of its window, its records, and whether it was the final one. A call without a
        window is in NO_WINDOW."""
        return [
            (minute(e["window"]["start"]), len(e["Records"]), e["isFinalInvokeForWindow"])
            if "window" in e
            else (NO_WINDOW, len(e["Records"]), False)
            for e in self.events
        ]

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("isFinalInvokeForWindow")]

    @property
    def totals(self) -> list[int]:
        """The counts that the final calls saw."""
        return [event["state"].get("count", 0) for event in self.finals]


def answer(call: HandlerCall, response: Any) -> Outcome:
    return from_window_response(response, {r.sequence_number for r in call.records}, report_failures=True)


def minute(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() - NOON) // 60


def window_world(seed: str, **config: Any) -> Simulation:
    batch = {"tumbling_window": "60s", "parallelization_factor": 1, "batch_size": 2} | config.pop("batch", {})
    options = {name: config.pop(name) for name in ("filters", "stream") if name in config}
    config |= {"batch": batch, "handler": {"kind": "lambda", "isolation": "process"}}
    return shard_world(seed, config, **options)


def at(world: Simulation, *seconds: int, key: str = "k") -> None:
    """Write records that were created so many seconds after noon."""
    for second in seconds:
        append(world, key, created=NOON + second)


async def events(world: Simulation, handler: Counting, count: int) -> None:
    """Until so many calls were made."""
    await until(world, lambda: len(handler.events) == count, f"{count} calls", saw=lambda: handler.shapes)


def stored_states(world: Simulation) -> list[bytes]:
    return [window.state for window in world.table.windows.values()]


def deploy(world: Simulation, **sections: dict[str, Any]) -> None:
    """Change the settings of the processes that start from now on."""
    config = world.settings.model_dump(mode="json")
    for name, changes in sections.items():
        config[name] |= changes
    filters = world.settings.filters
    world.settings = type(world.settings).model_validate(config).model_copy(update={"filters": filters})
