"""Faults that a test asks for: the same on a simulated network and on any other event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from consumer.domain.errors import DependencyError, LeaseLost, Throttled
from consumer.testing.network import Link
from consumer.testing.virtual_loop import Process, VirtualLoop


class Service:
    """Counts what is applied, in order."""

    def __init__(self) -> None:
        self.applied: list[str] = []

    def call(self, link: Link, operation: str) -> Awaitable[str]:
        def apply() -> str:
            self.applied.append(operation)
            return f"{operation} was applied"

        return link.carry(operation, apply)


Scenario = Callable[[Link, Service], Awaitable[None]]


def simulated(scenario: Scenario) -> None:
    loop = VirtualLoop(random.Random("network"))
    process = Process(loop, "client")
    link = Link(process, "table", random.Random("network"), 2.0)

    async def body() -> None:
        await process.spawn(_run(scenario, link), "scenario")

    loop.run_until(body())
    loop.close()
    assert loop.failures == []


def direct(scenario: Scenario) -> None:
    asyncio.run(_run(scenario, Link()))


async def _run(scenario: Scenario, link: Link) -> None:
    await scenario(link, Service())


@pytest.fixture(params=[simulated, direct], ids=["simulated", "direct"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    on: Callable[[Scenario], None] = request.param
    return on


def test_a_call_is_applied_and_answered(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        assert await service.call(link, "read") == "read was applied"
        assert service.applied == ["read"]

    run(scenario)


def test_a_refusal_is_for_the_operations_and_the_times_that_were_named(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        refused = link.refuse(Throttled("read", "slow down"), "read", "list", times=2)
        await service.call(link, "write")
        for operation in ("read", "list"):
            with pytest.raises(Throttled):
                await service.call(link, operation)
        await service.call(link, "read")
        assert (service.applied, refused.taken) == (["write", "read"], 2)

    run(scenario)


def test_a_fault_without_a_number_goes_on_until_its_end(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        lost = link.lose_request()
        for operation in ("read", "write", "read"):
            with pytest.raises(DependencyError, match="Timeout"):
                await service.call(link, operation)
        lost.end()
        await service.call(link, "read")
        assert (service.applied, lost.taken) == (["read"], 3)

    run(scenario)


def test_what_loses_its_response_was_applied(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        link.lose_response("write", times=1)
        with pytest.raises(DependencyError, match="Timeout"):
            await service.call(link, "write")
        assert service.applied == ["write"]

    run(scenario)


def test_held_requests_arrive_late_and_in_order(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        held = link.hold_request("one", "two")
        for operation in ("one", "two"):
            with pytest.raises(DependencyError, match="Timeout"):
                await service.call(link, operation)
        await service.call(link, "three")
        held.end()
        assert service.applied == ["three", "one", "two"]

    run(scenario)


def test_a_held_response_comes_at_the_end_of_the_fault() -> None:
    async def scenario(link: Link, service: Service) -> None:
        held = link.hold_response("write")
        call = asyncio.ensure_future(service.call(link, "write"))
        await asyncio.sleep(1.0)
        assert (service.applied, call.done()) == (["write"], False)
        held.end()
        assert await call == "write was applied"

    simulated(scenario)


def test_what_the_service_raises_is_the_answer(run: Callable[[Scenario], None]) -> None:
    async def scenario(link: Link, service: Service) -> None:
        def refuse() -> None:
            raise LeaseLost("shard", 1, "another owner")

        with pytest.raises(LeaseLost):
            await link.carry("save", refuse)

    run(scenario)
