"""A reload counts in a worker that runs, for every key that may change, and costs nothing of what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumer.domain.errors import MisconfiguredResource
from consumer.domain.outcome import OK, HandlerCall, HandlerFault, Outcome
from consumer.settings.reload import RELOADABLE
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_fleet import Gate, Recorder, add, checked, metric, until_owned, until_settled, write

Scenario = Callable[[Simulation], Awaitable[None]]


async def fails(call: HandlerCall) -> Outcome:
    await asyncio.sleep(0.01)
    return Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))


async def running(world: Simulation, behaviour: Any = None) -> tuple[SimulatedWorker, Recorder]:
    """A worker that owns its one shard."""
    worker, handler = add(world, "w", behaviour)
    await until_owned(world, worker)
    return worker, handler


def letters(world: Simulation) -> list[Any]:
    return [letter.json() for letter in world.dead_letters.delivered]


# --- each key, in a world whose worker has started with other values ---------------------------------------


async def filters(world: Simulation) -> None:
    worker, handler = await running(world)
    for number, pattern in enumerate((None, "b", "a", None)):
        worker.reload({"filters": [{"dynamodb": {"Keys": {"id": {"S": [{"prefix": pattern}]}}}}] if pattern else []})
        await world.sleep(0.1)
        world.put(f"a{number}")
        world.put(f"b{number}")
        await world.sleep(20.0)
    assert [key for key, _ in handler.handled] == ["a0", "b0", "b1", "a2", "a3", "b3"]


async def numeric_on_n(world: Simulation) -> None:
    pattern = {"filters": [{"dynamodb": {"NewImage": {"amount": {"N": [{"numeric": [">", 100]}]}}}}]}
    worker, handler = await running(world)
    for option in (False, True):
        worker.reload(pattern | {"filter_options": {"numeric_on_n": option}})
        await world.sleep(0.1)
        world.put(f"a {option}", amount=500)
        await world.sleep(20.0)
    assert handler.handled == [("a True", 1)]


async def max_retry_attempts(world: Simulation) -> None:
    worker, handler = await running(world, fails)
    calls = []
    for most in (0, 2):
        worker.reload({"retry": {**QUICK, "max_retry_attempts": most}})
        await world.sleep(0.1)
        before = len(handler.calls)
        world.put("a")
        await until_settled(world)
        calls.append(len(handler.calls) - before)
    assert calls == [1, 3]


async def max_record_age(world: Simulation) -> None:
    """Of 60 s at first: a batch keeps the rules that it began with."""
    mended = asyncio.Event()

    async def until_mended(call: HandlerCall) -> Outcome:
        return OK if mended.is_set() else await fails(call)

    worker, _ = await running(world, until_mended)
    world.put("old rule")
    await world.sleep(2.0)
    worker.reload({"retry": {**SLOW, "max_record_age": -1}})
    world.put("new rule")
    await world.sleep(180.0)
    given_up = str(letters(world))
    assert "old rule" in given_up
    assert "new rule" not in given_up
    mended.set()
    await until_settled(world)


async def bisect_on_error(world: Simulation) -> None:
    worker, handler = await running(world, fails)
    sizes = []
    for bisect in (True, False):
        worker.reload({"retry": {**QUICK, "max_retry_attempts": 3, "bisect_on_error": bisect}})
        await world.sleep(0.1)
        before = len(handler.calls)
        for _ in range(4):
            world.put("a")
        await until_settled(world)
        sizes.append({len(call.records) for call in handler.calls[before:]})
    assert 1 in sizes[0], "halved until records stand alone"
    assert sizes[1] == {4}, "one piece to its end"


async def backoff(world: Simulation, key: str) -> None:
    worker, handler = await running(world, fails)
    gaps = []
    for pause in ("1s", "20s"):
        wanted = {"initial": "1s", "max": "1s"} | {key: pause}
        wanted["max"] = max(wanted["max"], wanted["initial"], key=lambda text: float(text[:-1]))
        worker.reload({"retry": {"max_retry_attempts": 6, "backoff": wanted}})
        await world.sleep(0.1)
        began = world.loop.now
        world.put("a")
        await until_settled(world, 300.0)
        gaps.append(world.loop.now - began)
    assert gaps[0] < 10 < 40 < gaps[1]
    assert handler.calls


async def redact(world: Simulation) -> None:
    worker, _ = await running(world, fails)
    for paths in ([], ["ssn"]):
        worker.reload({"retry": {**QUICK, "max_retry_attempts": 0}, "on_failure": {**LETTERS, "redact": paths}})
        await world.sleep(0.1)
        world.put("a", ssn="123-45-6789")
        await until_settled(world)
    assert ["123-45-6789" in str(letter) for letter in letters(world)] == [True, False]


async def buffer(world: Simulation) -> None:
    """Readers that wait for room go on as soon as there is some, although nothing is released."""
    gate = Gate()
    worker, _ = await running(world, gate)
    for _ in range(3000):
        world.put("k", filling="x" * 3000)
    await world.sleep(30.0)
    stopped_at = metric(worker, "in_flight_records")
    assert stopped_at < 3000
    worker.reload({"limits": {"buffer": "1GiB"}, **ONE_LINE})
    await world.until(lambda: metric(worker, "in_flight_records") > stopped_at, 5.0, "more is read")
    gate.open()
    await until_settled(world, 600.0)


async def max_shards(world: Simulation) -> None:
    worker, _ = add(world, "w")
    await until_owned(world, worker, 1)
    await world.sleep(30.0)
    assert world.owned() == {worker.incarnation: 1}
    worker.reload({"limits": {"max_shards": 3}})
    await until_owned(world, worker, 3)
    worker.reload({"limits": {"max_shards": 1}})
    await world.sleep(30.0)
    assert world.owned() == {worker.incarnation: 3}, "what is held is kept"
    peer, _ = add(world, "v")
    await world.until(lambda: sum(world.owned().values()) == 4, 60.0, "the peer takes the rest")
    assert world.owned()[peer.incarnation] == 1


async def max_records(world: Simulation) -> None:
    worker, _ = await running(world)
    pages = []
    for most in (100, 2):
        worker.reload({"source": {"poll": {"max_records": most}, **SOURCE}})
        await world.sleep(20.0)
        before = metric(worker, "get_records", outcome="data")
        write(world, 40)
        await until_settled(world)
        pages.append(metric(worker, "get_records", outcome="data") - before)
    assert pages[0] <= 2
    assert pages[1] >= 20


async def idle_backoff_max(world: Simulation) -> None:
    worker, _ = await running(world)
    looks = []
    for longest in ("60s", "1s"):
        worker.reload({"source": {"poll": {"idle_backoff_max": longest}, **SOURCE}})
        await world.sleep(120.0)
        before = metric(worker, "get_records", outcome="empty")
        await world.sleep(120.0)
        looks.append(metric(worker, "get_records", outcome="empty") - before)
    assert looks[0] <= 5 < 60 < looks[1]


async def target_latency(world: Simulation) -> None:
    """A record every four seconds: reads are as far apart as the target."""
    worker, _ = await running(world)
    looks = []
    for target in ("4s", "500ms"):
        worker.reload({"source": {"poll": {"target_latency": target}, **SOURCE}})
        for look in range(60):
            if look == 20:
                before = world.calls["get_records"]
            world.put("a")
            await world.sleep(4.0)
        looks.append(world.calls["get_records"] - before)
    assert looks[0] <= 100 < 240 < looks[1]
    await until_settled(world)


async def interval(world: Simulation) -> None:
    worker, _ = await running(world)
    writes = []
    for pause in ("1s", "30s"):
        worker.reload({"checkpoint": {"interval": pause}})
        await world.sleep(60.0)
        revisions = set()
        for _ in range(60):
            world.put("a")
            await world.sleep(1.0)
            (row,) = world.rows().values()
            revisions.add(row.revision)
        writes.append(len(revisions))
    assert writes[1] <= 4 < 20 < writes[0]
    await until_settled(world)


QUICK: dict[str, Any] = {"backoff": {"initial": "10ms", "max": "20ms"}}
SLOW: dict[str, Any] = {"backoff": {"initial": "5s", "max": "5s"}}
LETTERS = {"destination": "arn:aws:sqs:us-east-1:000000000000:dead-letters"}
SOURCE = {"table": "orders", "on_gap": "continue"}
ONE_LINE: dict[str, Any] = {"batch": {"batch_size": 1, "parallelization_factor": 1}}

SCENARIOS: dict[str, tuple[Scenario, dict[str, Any]]] = {
    "filters": (filters, {}),
    "filter_options.numeric_on_n": (numeric_on_n, {}),
    "retry.max_retry_attempts": (max_retry_attempts, {}),
    "retry.max_record_age": (max_record_age, {"config": {"retry": {**SLOW, "max_record_age": "60s"}}}),
    "retry.bisect_on_error": (bisect_on_error, {}),
    "retry.backoff.initial": (lambda world: backoff(world, "initial"), {}),
    "retry.backoff.max": (lambda world: backoff(world, "max"), {}),
    "on_failure.redact": (redact, {}),
    "limits.buffer": (buffer, {"config": {"limits": {"buffer": "1MiB"}, **ONE_LINE}}),
    "limits.max_shards": (max_shards, {"shards": 4, "config": {"limits": {"max_shards": 1}}}),
    "source.poll.max_records": (max_records, {}),
    "source.poll.idle_backoff_max": (idle_backoff_max, {}),
    "source.poll.target_latency": (target_latency, {}),
    "checkpoint.interval": (interval, {}),
}


@pytest.mark.parametrize("key", SCENARIOS)
def test_a_reload_counts_in_a_worker_that_runs(key: str) -> None:
    scenario, options = SCENARIOS[key]
    skips = ("G1 complete",) if key.startswith("filter") else ()  # the checkers know of no filters
    world = checked(Simulation(f"reload {key}", **options), scenario, expected=skips)
    assert world.history.duplicates == []


def test_every_key_that_may_change_is_tried() -> None:
    """The level of the log belongs to the process: ``e2e/test_reload.py``."""
    assert SCENARIOS.keys() == RELOADABLE.keys() - {"logging.level"}


def test_filters_that_change_under_load_lose_repeat_and_overtake_nothing() -> None:
    """With failing keys that are deferred and read again meanwhile, a replica with other filters, and a hand-over."""
    world = Simulation("reload under load", shards=3, config={"retry": {"max_retry_attempts": 3, **QUICK}})
    passing = {"filters": [{"dynamodb": {"Keys": {"id": {"S": [{"prefix": "k"}]}}}}]}

    async def sometimes(call: HandlerCall) -> Outcome:
        await asyncio.sleep(0.05)
        is_poison = call.attempt == 1 and any(record.keys["id"] == "k3" for record in call.records)
        return Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison")) if is_poison else OK

    async def scenario(world: Simulation) -> None:
        worker, handler = add(world, "w", sometimes)
        peer, other = add(world, "v", sometimes)
        await world.until(world.balanced, 60.0)
        for number in range(40):
            write(world, 30)
            write(
                world, 5, keys=5, prefix=f"other {number} "
            )  # a skipped version is none that the next one may overtake
            worker.reload(passing if number % 2 else {})
            await world.sleep(0.2)
        await peer.stop()
        await world.sleep(60.0)
        handled = [version for version in (*handler.handled, *other.handled) if version[0].startswith("k")]
        assert len(set(handled)) == 40 * 30

    assert checked(world, scenario, expected=("G1 complete",)).history.duplicates == []


def test_redaction_of_a_key_of_the_table_is_refused_and_nothing_has_changed() -> None:
    async def scenario(world: Simulation) -> None:
        worker, _ = await running(world)
        context = worker.context
        assert context is not None
        before = context.settings
        with pytest.raises(MisconfiguredResource, match=r"on_failure\.redact"):
            worker.reload({"on_failure": {**LETTERS, "redact": ["id"]}, "limits": {"buffer": "1GiB"}})
        assert context.settings is before

    checked(Simulation("redact a key"), scenario)
