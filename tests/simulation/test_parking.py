"""Parked and blocked keys, one promise at a time. The family of random runs mixes all of this (``parking.py``)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.domain.batching import KeyBounds
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.domain.shards import DAY
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.network import Weather
from consumer.testing.simulated_redrive import SimulatedRedrive
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import APPLICATION, Simulation
from consumer.worker.shard.blocked_pieces import PROBE
from tests.support.simulated_fleet import LogEvents
from tests.support.simulated_shards import ALONE, FAILED, Recorder, keys, letters, run, shard_world, start, until

PARK = {"order": "park_key"}
BLOCK = {"order": "block"}
NO_RETRY = {"max_retry_attempts": 0}


class Mendable(Recorder):
    """Fails with the keys in ``bad``."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)
        self.handled: list[str] = []
        super().__init__(self._behave)

    async def _behave(self, call: HandlerCall) -> Outcome:
        if self.bad & set(keys(call)):
            return FAILED
        self.handled += keys(call)
        return OK

    def calls_with(self, key: str) -> int:
        return sum(key in call for call in self.keys)


def parking_world(name: str, config: dict[str, Any] | None = None, **more: Any) -> tuple[Simulation, LogEvents]:
    events = LogEvents()
    sections = {"on_failure": PARK, "retry": NO_RETRY} | (config or {})
    return shard_world(name, sections, on_event=events, **more), events


async def redriven(world: Simulation, handler: Mendable) -> None:
    """One redrive after the other, with the handler as it is, until no key is parked."""

    def handles(shard_id: str, number: str) -> bool:
        return world.checkers.item(shard_id, number).key not in handler.bad

    redrive = SimulatedRedrive(world, "r", handles)

    def is_free() -> bool:
        if world.table.parked and redrive.process is None:
            redrive.start()
        return not world.table.parked

    await until(world, is_free, "every key is free", 120.0)
    redrive.kill()


async def restarted(worker: SimulatedWorker, **sections: Any) -> None:
    """Another deploy of the worker, with other options."""
    await worker.stop()
    worker.configure(sections)
    worker.start()


def parked(world: Simulation) -> int:
    return len(world.table.parked)


# --- options that change while keys are parked ---------------------------------------------------------


def test_a_shard_that_is_handled_in_order_now_waits_for_parked_keys_and_lets_them_be_freed() -> None:
    world, events = parking_world("in order")
    handler = Mendable("poison")

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        await until(world, lambda: parked(world) == 1, "the key is parked", 30.0)
        in_order = {"order": "shard", "parallelization_factor": 1}
        await restarted(worker, on_failure={"order": "continue"}, batch=in_order)
        world.put("poison")
        world.put("other")
        await asyncio.sleep(60.0)
        assert handler.handled.count("other") == 0, "nothing may overtake: the shard has one order"
        assert len(events.of("parked_keys.in_order")) == 1
        handler.bad.clear()
        await redriven(world, handler)
        await until(world, lambda: handler.handled.count("other") == 1, "the shard goes on", 30.0)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


def test_records_of_a_parked_key_follow_only_to_where_they_are_kept() -> None:
    world, events = parking_world("no destination")
    handler = Mendable("poison")

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        await until(world, lambda: parked(world) == 1, "the key is parked", 30.0)
        await restarted(worker, on_failure={"order": "continue", "destination": None})
        handler.bad.clear()
        world.put("poison")
        await asyncio.sleep(30.0)
        assert events.of("parked_keys.no_destination")
        assert handler.handled.count("poison") == 0, "not handled before its older record"
        assert not events.of("records.discarded")
        await restarted(worker, on_failure=PARK)
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


def test_an_order_that_is_continue_now_does_not_let_a_parked_key_be_overtaken() -> None:
    world, _ = parking_world("continue now")
    handler = Mendable("poison")

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        await until(world, lambda: parked(world) == 1, "the key is parked", 30.0)
        await restarted(worker, on_failure={"order": "continue"})
        handler.bad.clear()
        world.put("poison")
        await until(world, lambda: len(letters(world)) == 2, "its next record follows it", 30.0)
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


# --- load ----------------------------------------------------------------------------------------------


def test_many_parked_keys_under_traffic_hold_up_nothing_but_themselves() -> None:
    """A new owner finds records of hundreds of parked keys at once, in one batch."""
    many = [f"poison-{number}" for number in range(400)]
    world, events = parking_world("storm", {"batch": {"batch_size": 10_000}, "on_failure": PARK | {"breaker": False}})
    handler = Mendable(*many)

    async def scenario() -> None:
        worker = start(world, "a", handler)
        for key in many:
            world.put(key)
        await until(world, lambda: parked(world) == len(many), "all are parked", 120.0)
        await worker.stop()
        before = len(events.of("shard.paused"))
        for _ in range(3):
            for key in many:
                world.put(key)
        world.put("healthy")
        worker.start()
        await until(world, lambda: handler.handled.count("healthy") == 1, "the healthy key is handled", 60.0)
        await until(world, world.everything_settled, "all have followed", 120.0)
        assert len(events.of("shard.paused")) == before
        assert len(letters(world)) == 4 * len(many)

    run(world, scenario)


def test_at_the_bound_of_parked_keys_the_shard_pauses_and_loses_nothing() -> None:
    few = KeyBounds(parked_keys=3)
    world, events = parking_world("bound")
    world.bounds = few
    handler = Mendable(*(f"poison-{number}" for number in range(5)))

    async def scenario() -> None:
        start(world, "a", handler)
        for number in range(5):
            world.put(f"poison-{number}")
        await until(world, lambda: bool(events.of("parked_keys.full")), "the bound is told", 60.0)
        await asyncio.sleep(60.0)
        assert parked(world) == 3
        handler.bad.clear()
        await redriven(world, handler)
        await until(world, world.everything_settled, "the others had their turn", 120.0)
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


# --- block ---------------------------------------------------------------------------------------------


def test_a_blocked_key_waits_in_place_is_tried_now_and_then_and_goes_on_in_order() -> None:
    world, events = parking_world("block", {"on_failure": BLOCK})
    handler = Mendable("poison")

    async def scenario() -> None:
        start(world, "a", handler)
        for _ in range(3):
            world.put("poison")
        world.put("healthy")
        await until(world, lambda: bool(events.of("key.blocked")), "the key is blocked", 30.0)
        tries = handler.calls_with("poison")
        await asyncio.sleep(3 * PROBE + 30.0)
        assert handler.calls_with("poison") - tries == 3, "one attempt every five minutes"
        assert handler.handled.count("healthy") == 1
        assert len(events.of("key.blocked")) == 1
        handler.bad.clear()
        await until(world, world.everything_settled, "it gets through by itself", PROBE + 30.0)
        assert letters(world) == []
        assert parked(world) == 0

    run(world, scenario)


def test_beyond_the_bound_the_oldest_blocked_key_is_parked() -> None:
    world, _ = parking_world("block bound", {"on_failure": BLOCK})
    world.bounds = KeyBounds(blocked_keys=2)
    handler = Mendable("p0", "p1", "p2")

    async def scenario() -> None:
        start(world, "a", handler)
        for number in range(3):
            world.put(f"p{number}")
            await asyncio.sleep(30.0)
        await until(world, lambda: parked(world) == 1, "one is parked", 30.0)
        assert [world.checkers.item(*place).key for place in _letter_places(world)] == ["p0"]
        handler.bad.clear()
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


@pytest.mark.soak
def test_a_blocked_key_is_parked_when_half_of_its_retention_is_over() -> None:
    world, _ = parking_world("block age", {"on_failure": BLOCK})
    handler = Mendable("poison")

    async def scenario() -> None:
        start(world, "a", handler)
        world.put("poison")
        await asyncio.sleep(DAY / 2 - 2 * PROBE)
        assert parked(world) == 0
        await asyncio.sleep(4 * PROBE)
        assert parked(world) == 1
        handler.bad.clear()
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


def _letter_places(world: Simulation) -> list[tuple[str, str]]:
    return [(one.attributes["shard_id"], one.attributes["sequence_number"]) for one in world.dead_letters.delivered]


# --- a key that is closing -----------------------------------------------------------------------------


def test_a_closing_is_not_answered_while_a_letter_is_under_way() -> None:
    """Also when the record has arrived while an earlier closing was being answered."""
    world, _ = parking_world("closing")
    handler = Mendable("poison")

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        await until(world, lambda: parked(world) == 1, "the key is parked", 30.0)
        redrive = MemoryLeaseStore(world.table, APPLICATION, world.loop.world.wall)
        (found,) = await redrive.parked()
        assert found.key is not None
        key = await redrive.claim_parked(found.key, "redrive#1")
        assert key is not None
        store: Any = worker.context.ports.store  # type: ignore[union-attr]  # it runs
        method, asked, may_answer = store.close_parked, asyncio.Event(), asyncio.Event()

        async def late(*args: Any) -> Any:
            store.close_parked = method
            answer = await method(*args)
            asked.set()
            await may_answer.wait()
            return answer

        store.close_parked = late
        await redrive.begin_closing(key, "nonce-1")
        await asked.wait()
        world.put("poison")
        await asyncio.sleep(5.0)
        may_answer.set()
        await asyncio.sleep(5.0)
        worker.links["dead_letters"].weather = Weather(throttle=1.0)
        await redrive.release_parked(key)  # it has given up: what was held back follows, and its letter is refused
        await asyncio.sleep(20.0)
        key = await redrive.claim_parked((await redrive.parked_key(key.digest)).key or key, "redrive#2")
        assert key is not None
        await redrive.begin_closing(key, "nonce-2")
        await asyncio.sleep(20.0)
        assert [row.closed for row in (await redrive.parked_key(key.digest)).shards] == ["nonce-1"]
        worker.links["dead_letters"].weather = Weather()
        await asyncio.sleep(30.0)
        (row,) = (await redrive.parked_key(key.digest)).shards
        assert (row.closed, row.letters) == ("nonce-2", 2)
        handler.bad.clear()
        await redrive.release_parked(key)
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()


# --- rows that cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize("of_key", [True, False], ids=["key", "shard"])
def test_a_damaged_row_holds_up_its_key_and_nothing_else(of_key: bool) -> None:
    """Also when another worker takes the shard over; once it is put right everything goes on, in order."""
    world, events = parking_world("damaged", ALONE)
    handler = Mendable("poison")

    async def scenario() -> None:
        worker = start(world, "a", handler)
        world.put("poison")
        world.put("poison")
        await until(world, lambda: sum(row.letters for row in world.table.parked_shards.values()) == 2, "letters", 30.0)
        ((app, digest, label, shard_id),) = world.table.parked_shards
        place = (app, digest, "", "") if of_key else (app, digest, label, shard_id)
        world.table.parked_damage[place] = f"row {digest} is damaged"
        await worker.stop()
        worker.start()
        for key in ("poison", "other", "poison", "another"):
            world.put(key)
        await until(world, lambda: {"other", "another"} <= set(handler.handled), "other keys are handled", 30.0)
        await asyncio.sleep(120.0)
        assert len(letters(world)) == 2, "its later records wait"
        assert len(events.of("parked_key.damaged")) == 1, "said once"
        assert not events.of("lease.lost")

        del world.table.parked_damage[place]
        await until(world, lambda: len(letters(world)) == 4, "they follow", 60.0)
        handler.bad.clear()
        await redriven(world, handler)

    run(world, scenario)
    world.parking.at_the_end()
    world.check()
