"""What a failing probe of one shard says, when the handler works in another one and when it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from consumer.domain.breaker import FIRST_PAUSE, GOOD_PROBES, KEYS
from consumer.domain.outcome import Outcome
from consumer.worker.context import WorkerContext
from consumer.worker.shard.breaker import ShardBreaker
from tests.unit.worker.lease_owner import HeldLease, Owner, with_owner

FAILED = Outcome("failed")


def breakers(work: Callable[[WorkerContext, ShardBreaker, ShardBreaker], Awaitable[None]]) -> None:
    """An open breaker and a closed one of another shard of the same worker."""

    async def with_both(owner: Owner, _: HeldLease) -> None:
        open_one, other = (ShardBreaker(owner.context, name, lambda: 0.0) for name in ("shardId-1", "shardId-2"))
        for number in range(KEYS):
            open_one.fails(object(), b"%d" % number)
        assert (open_one.state, other.state) == ("open", "closed")
        await work(owner.context, open_one, other)
        open_one.stop()
        other.stop()

    with_owner(with_both)


async def probes(breaker: ShardBreaker, outcome: Outcome, meanwhile: Callable[[], None]) -> float:
    """Fails a probe as soon as one may start; returns how long it had to wait for it."""
    seconds = 0.0
    while not breaker.may_probe():
        await asyncio.sleep(1.0)
        seconds += 1.0
        meanwhile()
    call = object()
    breaker.begin(call)
    breaker.answered(outcome, {b"poison"}, (), call)
    return seconds


def test_poison_does_not_keep_a_breaker_open_while_the_handler_works_in_another_shard() -> None:
    """What is left of a shard that has ended may be poison, and nothing else comes that could close it."""

    async def work(_: WorkerContext, ended: ShardBreaker, other: ShardBreaker) -> None:
        waits = [await probes(ended, FAILED, lambda: other.handled(object(), 1)) for _ in range(GOOD_PROBES)]
        assert ended.is_closed
        assert max(waits) <= FIRST_PAUSE + 1.0

    breakers(work)


@pytest.mark.parametrize("case", ["nothing works", "its own shard works", "the handler cannot be reached"])
def test_otherwise_probes_come_later_and_later(case: str) -> None:
    async def work(_: WorkerContext, ended: ShardBreaker, other: ShardBreaker) -> None:
        works = {"its own shard works": ended, "the handler cannot be reached": other}.get(case)
        outcome = Outcome("not_invoked") if case == "the handler cannot be reached" else FAILED
        meanwhile = (lambda: None) if works is None else (lambda: works.handled(object(), 1))
        waits = [await probes(ended, outcome, meanwhile) for _ in range(4)]
        assert not ended.is_closed
        assert waits == sorted(set(waits))
        assert waits[-1] > 6 * FIRST_PAUSE

    breakers(work)


def test_a_success_of_long_ago_says_nothing() -> None:
    async def work(_: WorkerContext, ended: ShardBreaker, other: ShardBreaker) -> None:
        other.handled(object(), 1)
        await asyncio.sleep(FIRST_PAUSE + 1.0)
        for _ in range(GOOD_PROBES):
            await probes(ended, FAILED, lambda: None)
        assert not ended.is_closed

    breakers(work)


def test_one_that_is_open_is_no_witness() -> None:
    """In an outage that lets a call through now and then two open breakers would close each other."""

    async def work(context: WorkerContext, ended: ShardBreaker, other: ShardBreaker) -> None:
        for number in range(KEYS):
            other.fails(object(), b"%d" % number)
        for _ in range(GOOD_PROBES):
            await probes(ended, FAILED, lambda: other.handled(object(), 1))
        assert not ended.is_closed

    breakers(work)
