"""What the log says about a batch that fails: where in the user's code, what happens next, and with which records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog.testing import capture_logs

from consumer.domain.errors import DependencyError
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from tests.unit.worker.harness import World, until

MakeWorld = Callable[..., World]
TWO_RETRIES = {"retry": {"max_retry_attempts": 2, "backoff": {"initial": "1ms", "max": "1s"}}}


async def fail(call: HandlerCall) -> Outcome:
    stack = tuple(f'  File "app.py", line {line}, in f\n' for line in range(1, 41))
    return Outcome("failed", fault=HandlerFault("raised", "KeyError", "'total'", stack))


def named(logs: list[Any], event: str) -> list[Any]:
    return [entry for entry in logs if entry["event"] == event]


async def test_a_failed_call_names_the_line_of_the_users_code(make_world: MakeWorld) -> None:
    """Without it `KeyError: 'total'`, retried for a day, is all that anybody learns."""
    world = make_world(config=TWO_RETRIES)
    world.put("k")
    with capture_logs() as logs:
        await world.worker("a", fail)
        await until(lambda: len(world.losses()) == 1)
    first = named(logs, "batch.failed")[0]
    assert (first["error_type"], first["error"]) == ("KeyError", "'total'")
    assert first["error_stack"][-1] == '  File "app.py", line 40, in f\n', "the innermost frames are the ones that tell"
    assert len(first["error_stack"]) == 10


async def test_a_retry_is_announced_with_its_pause(make_world: MakeWorld) -> None:
    world = make_world(config=TWO_RETRIES)
    number = world.put("k")
    with capture_logs() as logs:
        await world.worker("a", fail)
        await until(lambda: len(world.losses()) == 1)
    retries = named(logs, "batch.retry_scheduled")
    assert [(entry["attempt"], entry["after"]) for entry in retries] == [(2, 0.001), (3, 0.002)]
    for entry in retries:
        assert entry["log_level"] == "info"
        assert (entry["shard_id"], entry["records"]) == (world.stream.open_shards()[0], 1)
        assert entry["first_sequence_number"] == entry["last_sequence_number"] == number


async def test_a_refused_dead_letter_names_its_records(make_world: MakeWorld) -> None:
    letters = MemoryDeadLetters()
    letters.fail_next(DependencyError("SendMessage", "ServiceUnavailable"), 1)
    world = make_world(dead_letters=letters, config=TWO_RETRIES)
    number = world.put("k")
    with capture_logs() as logs:
        await world.worker("a", fail)
        await until(lambda: len(letters.delivered) == 1)
    (refused,) = named(logs, "dead_letter.refused")
    assert refused["first_sequence_number"] == refused["last_sequence_number"] == number
    assert refused["attempt"] == 1
