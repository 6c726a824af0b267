"""The byte budget: first come first served, a page for every shard, and nothing leaks."""

from __future__ import annotations

import asyncio
import random

import pytest

from consumer.worker import memory_budget
from consumer.worker.memory_budget import BudgetAccount, ByteBudget


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_waiters_are_served_in_order_of_arrival() -> None:
    """A small request behind a large one waits for it: readers of large pages never starve."""
    budget, served = ByteBudget(100), list[str]()

    async def want(name: str, size: int) -> None:
        await budget.reserve(size)
        served.append(name)

    await budget.reserve(90)
    async with asyncio.TaskGroup() as group:
        for name, size in (("large", 80), ("small", 5), ("last", 5)):
            group.create_task(want(name, size))
            await turn()
        assert served == []
        budget.release(60)
        await turn()
        assert served == []
        budget.release(30)
    assert served == ["large", "small", "last"]
    assert budget.used == 90


async def test_no_request_overtakes_the_line() -> None:
    """A request that would fit waits behind those that came first."""
    budget = ByteBudget(10)
    await budget.reserve(6)
    first = asyncio.create_task(budget.reserve(6))
    await turn()
    second = asyncio.create_task(budget.reserve(1))
    await turn()
    assert not second.done()
    budget.release(6)
    await asyncio.gather(first, second)
    assert budget.used == 7


async def test_oversize_requests_are_granted_when_nothing_else_is_held() -> None:
    """A small budget slows the daemon down but never stops it."""
    budget = ByteBudget(10)
    await budget.reserve(1000)
    assert budget.used == 1000
    waiter = asyncio.create_task(budget.reserve(1000))
    await turn()
    budget.release(999)
    await turn()
    assert not waiter.done()
    budget.release(1)
    await waiter
    assert budget.used == 1000


async def test_charges_never_wait_and_overdraw() -> None:
    """What is in memory already is counted, and the next reader waits for it."""
    budget = ByteBudget(10)
    await budget.reserve(10)
    budget.charge(15)
    waiter = asyncio.create_task(budget.reserve(5))
    budget.release(10)
    await turn()
    assert not waiter.done()
    budget.release(10)
    await waiter
    assert budget.used == 10


async def test_a_cancelled_waiter_leaves_the_line_and_lets_the_next_pass() -> None:
    """The one behind a large request does not wait for one that was cancelled."""
    budget = ByteBudget(10)
    await budget.reserve(5)
    large = asyncio.create_task(budget.reserve(10))
    await turn()
    small = asyncio.create_task(budget.reserve(5))
    await turn()
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    await small
    assert budget.used == 10


async def test_cancelled_right_after_its_grant() -> None:
    """The grant was made but never received: it goes back."""
    budget = ByteBudget(10)
    await budget.reserve(10)
    waiter = asyncio.create_task(budget.reserve(7))
    await turn()
    budget.release(10)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert budget.used == 0
    await budget.reserve(10)


async def test_cancelled_right_before_its_grant() -> None:
    """A release between the cancellation and its arrival drops the entry: still a plain cancellation."""
    budget = ByteBudget(10)
    await budget.reserve(10)
    waiter = asyncio.create_task(budget.reserve(7))
    follower = asyncio.create_task(budget.reserve(10))
    await turn()
    waiter.cancel()
    budget.release(10)
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await follower
    assert budget.used == 10


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancellations_leak_nothing(seed: int) -> None:
    """Any mixture of reserving, holding, releasing and cancelling ends at zero, within the limit all along."""
    randomness, budget, held = random.Random(seed), ByteBudget(100), 0
    peak = 0

    async def work() -> None:
        nonlocal held, peak
        for _ in range(10):
            size = randomness.choice([1, 10, 40, 100])
            await budget.reserve(size)
            held += size
            peak = max(peak, held)
            try:
                for _ in range(randomness.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                held -= size
                budget.release(size)

    tasks = [asyncio.create_task(work()) for _ in range(30)]
    for _ in range(200):
        await asyncio.sleep(0)
        if randomness.random() < 0.2:
            randomness.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert (budget.used, held) == (0, 0)
    assert peak <= 100
    await asyncio.wait_for(budget.reserve(100), 1)


async def test_closing_an_account_returns_everything_once() -> None:
    """Late releases of records that outlive their shard do not count twice."""
    budget = ByteBudget(100)
    mine, other = BudgetAccount(budget), BudgetAccount(budget)
    await mine.reserve(30)
    mine.charge(20)
    await other.reserve(10)
    mine.release(5)
    assert (mine.held, other.held, budget.used) == (45, 10, 55)
    mine.close()
    mine.close()
    mine.release(45)
    assert (mine.held, budget.used) == (0, 10)
    other.close()
    assert budget.used == 0


async def test_a_closed_account_holds_nothing_that_comes_late() -> None:
    """A reservation that was still waiting, or a copy that is charged late, is not leaked."""
    budget = ByteBudget(10)
    await budget.reserve(10)
    account = BudgetAccount(budget)
    waiter = asyncio.create_task(account.reserve(5))
    await turn()
    account.close()
    budget.release(10)
    await waiter
    account.charge(7)
    account.release(12)
    assert (account.held, budget.used) == (0, 0)


async def test_closing_wakes_those_that_wait() -> None:
    """What a lost shard held is free for the others at once."""
    budget = ByteBudget(10)
    lost = BudgetAccount(budget)
    await lost.reserve(10)
    waiter = asyncio.create_task(budget.reserve(10))
    await turn()
    lost.close()
    await waiter
    assert budget.used == 10


async def test_accounts_cancelled_while_waiting_hold_nothing() -> None:
    """Cancellation is passed on and nothing is booked."""
    budget = ByteBudget(10)
    await budget.reserve(10)
    account = BudgetAccount(budget)
    waiter = asyncio.create_task(account.reserve(5))
    await turn()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert account.held == 0
    account.close()
    assert budget.used == 10


# --- a page for every shard ------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is over at the next turn of the loop."""
    monkeypatch.setattr(memory_budget, "PAGE_PATIENCE", 0.0)


async def used_up(limit: int = 100) -> tuple[ByteBudget, BudgetAccount]:
    """A budget, and the account that holds all of it."""
    budget = ByteBudget(limit)
    account = BudgetAccount(budget)
    await account.reserve(limit)
    return budget, account


async def test_patience_comes_before_a_page_that_does_not_fit() -> None:
    """A budget that is full for a moment is not exceeded."""
    budget, other = await used_up()
    account = BudgetAccount(budget)
    waiter = asyncio.create_task(account.reserve(25))
    await turn()
    assert not waiter.done()
    other.release(25)
    await waiter
    assert budget.used == 100


@pytest.mark.usefixtures("impatient")
async def test_what_another_shard_holds_never_stops_one_that_holds_little() -> None:
    budget, _ = await used_up()
    account = BudgetAccount(budget)
    account.charge(budget.small - 1)
    await account.reserve(budget.page_reserve)
    assert (account.held, budget.used) == (24 + 25, 100 + 24 + 25)
    assert not budget.short.is_set(), "nobody waits"


@pytest.mark.usefixtures("impatient")
async def test_a_shard_that_holds_enough_waits_until_it_holds_less() -> None:
    budget, _ = await used_up()
    account = BudgetAccount(budget)
    account.charge(budget.small)
    waiter = asyncio.create_task(account.reserve(budget.page_reserve))
    await turn()
    assert not waiter.done()
    account.release(1)
    await waiter
    assert account.held == 24 + 25


@pytest.mark.usefixtures("impatient")
async def test_two_readers_of_a_shard_are_sure_of_one_page_together() -> None:
    budget, _ = await used_up()
    account = BudgetAccount(budget)
    first, second = (asyncio.create_task(account.reserve(budget.page_reserve)) for _ in range(2))
    await first
    await turn()
    assert not second.done()
    account.release(budget.page_reserve)
    await second
    assert account.held == budget.page_reserve


@pytest.mark.usefixtures("impatient")
async def test_an_overdue_reader_that_is_cancelled_holds_nothing() -> None:
    """Before its page is granted, and between the grant and its arrival."""
    budget, _ = await used_up()
    account = BudgetAccount(budget)
    account.charge(budget.small)
    before, between = (asyncio.create_task(account.reserve(20)) for _ in range(2))
    await turn()
    before.cancel()
    await turn()
    account.release(budget.small)
    between.cancel()
    for waiter in (before, between):
        with pytest.raises(asyncio.CancelledError):
            await waiter
    assert (account.held, budget.used) == (0, 100)


@pytest.mark.usefixtures("impatient")
async def test_a_closed_account_is_granted_nothing_out_of_turn() -> None:
    budget, _ = await used_up()
    account = BudgetAccount(budget)
    account.charge(budget.small)
    waiter = asyncio.create_task(account.reserve(20))
    await turn()
    account.close()
    await waiter
    assert (account.held, budget.used) == (0, 100)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("seed", range(20))
async def test_the_sum_stays_below_the_buffer_and_a_page_for_each_shard(seed: int) -> None:
    """Whatever is reserved, kept, released and cancelled, with two readers a shard; and nothing leaks."""
    randomness, budget = random.Random(seed), ByteBudget(1000)
    accounts = [BudgetAccount(budget) for _ in range(8)]
    page, peak = budget.page_reserve, 0

    async def read(account: BudgetAccount) -> None:
        nonlocal peak
        for _ in range(20):
            await account.reserve(page)
            peak = max(peak, budget.used)
            for _ in range(randomness.choice([0, 1, 5, 50])):
                await asyncio.sleep(0)
            account.release(page - randomness.choice([0, 0, 10, page]))  # the rest is kept for ever

    tasks = [asyncio.create_task(read(account)) for account in accounts for _ in range(2)]
    for _ in range(300):
        await asyncio.sleep(0)
        if randomness.random() < 0.02:
            randomness.choice(tasks).cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 1000 < peak <= 1000 + len(accounts) * (budget.small + page)
    assert budget.used == sum(account.held for account in accounts)
    for account in accounts:
        account.close()
    assert budget.used == 0
    assert not budget.short.is_set()


async def test_who_waits_gets_room_when_the_limit_is_raised() -> None:
    """Without anything being released: what is held may be held for hours."""
    budget, served = ByteBudget(100), list[int]()

    async def reader(size: int) -> None:
        await budget.reserve(size)
        served.append(size)

    budget.charge(100)
    readers = [asyncio.create_task(reader(size)) for size in (30, 30, 100)]
    await asyncio.sleep(0)
    budget.resize(160)
    await asyncio.sleep(0)
    assert (served, budget.used, budget.short.is_set()) == ([30, 30], 160, True)
    for waiting in readers:
        waiting.cancel()


async def test_a_smaller_limit_takes_nothing_back_and_grants_nothing_until_it_fits() -> None:
    budget = ByteBudget(100)
    budget.charge(80)
    budget.resize(50)
    claim = budget.claim(20)
    assert (budget.used, claim is None) == (80, False)
    budget.release(40)
    assert budget.used == 40, "the claim does not fit into what is left"
    budget.release(10)
    assert budget.used == 50, "it does now, and has taken it"
