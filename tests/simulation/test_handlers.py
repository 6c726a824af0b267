"""A user's own handler under the simulator; the examples of docs/testing.md run as they are written."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from consumer.testing.handlers import simulate_handler
from consumer.testing.observed import FunctionHandler
from consumer.testing.simulation import BrokenPromise, Simulation

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page(number: int) -> None:
    names: dict[str, Any] = {}
    exec(compile(EXAMPLES[number], f"{PAGE} example {number + 1}", "exec"), names)
    tests = [value for name, value in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_a_plain_function_is_refused() -> None:
    def handle(records: Any, context: Any) -> None:
        """Would run in a thread."""

    with pytest.raises(TypeError, match="async"):
        simulate_handler(handle)  # type: ignore[arg-type]  # a wrong one, on purpose


def test_the_context_tells_virtual_time() -> None:
    left: list[int] = []

    async def handle(records: Any, context: Any) -> None:
        left.append(context.get_remaining_time_in_millis())
        await asyncio.sleep(20.0)
        left.append(context.get_remaining_time_in_millis())

    simulate_handler(handle, faults={}, seconds=5.0, workers=1).check()
    assert {round(millis, -2) for millis in left} == {60_000, 40_000}


def test_a_call_that_hangs_is_cancelled_at_its_time_out() -> None:
    async def handle(records: Any, context: Any) -> None:
        if context.attempt == 1 and any(record.new_image["v"] == 3 for record in records):
            await asyncio.Event().wait()

    config = {"handler": {"kind": "python", "isolation": "inline", "target": "m:h", "timeout": "5s"}}
    config |= {"retry": {"max_retry_attempts": 3, "bisect_on_error": False}}
    world = simulate_handler(handle, faults={}, seconds=30.0, config=config)
    world.check()
    assert any(item.failures for item in world.history.items.values())
    assert not world.dead_letters.delivered


def test_a_call_that_hangs_is_cancelled_also_after_a_restart() -> None:
    """A killed process takes its timers along; those of the next one must not wait for them."""
    world = Simulation("restart", config={"handler": {"kind": "python", "target": "m:h", "timeout": "5s"}})
    calls: list[int] = []

    async def handle(records: Any, context: Any) -> None:
        calls.append(context.lease_epoch)
        if len(calls) <= 2:
            await asyncio.Event().wait()

    async def scenario(world: Simulation) -> None:
        worker = world.add_worker("worker", FunctionHandler(handle))
        worker.start()
        world.put("key")
        await world.until(lambda: len(calls) == 1, 30.0, "the first call")
        worker.kill()
        worker.start()
        await world.until(world.everything_settled, 60.0, "everything settled")
        await world.finish()

    world.run(scenario)
    world.check()
    assert calls[0] < calls[1] == calls[2]


def test_items_with_a_sort_key_and_deletions() -> None:
    seen: list[tuple[str, str]] = []

    async def handle(records: Any, context: Any) -> None:
        seen.extend((record.keys["sk"], record.event_name) for record in records)

    async def writes(world: Simulation) -> None:
        for sort in ("x", "y"):
            world.write({"pk": "a", "sk": sort, "n": 1})
            world.write({"pk": "a", "sk": sort, "n": 2})
            world.delete({"pk": "a", "sk": sort})
            assert world.delete({"pk": "a", "sk": sort}) is None

    keys = {"partition_key": "pk", "sort_key": "sk"}
    world = simulate_handler(handle, faults={}, seconds=5.0, writes=writes, stream=keys)
    world.check()
    for sort in ("x", "y"):
        assert [event for name, event in seen if name == sort] == ["INSERT", "MODIFY", "REMOVE"]


def test_a_mistake_in_the_writes_is_not_swallowed() -> None:
    async def handle(records: Any, context: Any) -> None:
        """Whatever."""

    async def writes(world: Simulation) -> None:
        raise KeyError("my mistake")

    with pytest.raises(KeyError, match="my mistake"):
        simulate_handler(handle, faults={}, seconds=5.0, writes=writes)


def test_a_low_watermark_alone_is_no_finding() -> None:
    """``idempotency.mode: off`` forgets what is settled above the checkpoint, as it says."""
    mode: dict[str, dict[str, Any]] = {"idempotency": {"mode": "off"}, "batch": {"batch_size": 1}}

    async def handle(records: Any, context: Any) -> None:
        await asyncio.sleep(0.2 * int(records[0].new_image["v"]) % 3)

    world = simulate_handler(handle, config=mode, faults={}, seconds=30.0)
    world.check()


def test_check_names_the_seed() -> None:
    world = Simulation("seven")

    async def scenario(world: Simulation) -> None:
        await world.until(lambda: False, 1.0, "the impossible")

    world.run(scenario)
    with pytest.raises(BrokenPromise, match=r"seed 'seven'.*\n.*liveness: the impossible"):
        world.check()
