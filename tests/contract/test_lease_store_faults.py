"""Lost requests and lost responses: a write that got no answer is repeated, and never mistaken for another worker's."""

import asyncio
from dataclasses import replace

import pytest

from consumer.domain.bulletin import Bulletin, Change, Post
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.errors import DependencyError, LeaseLost, SessionFenced
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.ports.leases import Loss, Registration
from tests.contract.test_lease_store import LABEL, NUMBER, SHARD, held


@pytest.fixture(params=["lose_request", "lose_response"])
def fault(request):
    return request.param


async def test_a_take_survives_a_fault(leases, fault):
    store = leases.store()
    await store.add_lease(LABEL, LeaseRow(SHARD))
    getattr(leases.link, fault)(*leases.WRITES, times=1)
    taken = await store.take(LABEL, LeaseRow(SHARD), "a", "n")
    assert (taken.owner, taken.epoch) == ("a", 1)
    assert await store.lease(LABEL, SHARD) == taken


async def test_a_take_whose_every_answer_is_lost_is_recognised_by_its_nonce(leases):
    store = leases.store()
    await store.add_lease(LABEL, LeaseRow(SHARD))
    leases.link.lose_response(*leases.WRITES, times=3)
    taken = await store.take(LABEL, LeaseRow(SHARD), "a", "n")
    assert (taken.owner, taken.epoch) == ("a", 1)


async def test_a_take_that_never_arrived_is_not_ours(leases):
    store = leases.store()
    await store.add_lease(LABEL, LeaseRow(SHARD))
    leases.link.lose_request(*leases.WRITES, times=3)
    assert await store.take(LABEL, LeaseRow(SHARD), "a", "n") is None
    assert (await store.lease(LABEL, SHARD)).owner is None


async def test_an_earlier_take_of_ours_is_not_taken_for_this_one(leases):
    store = leases.store()
    first = await held(store, "a")
    assert await store.take(LABEL, LeaseRow(SHARD), "a", "another nonce") is None
    assert await store.lease(LABEL, SHARD) == first


async def test_a_save_survives_a_fault(leases, fault):
    store = leases.store()
    row = await held(store)
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    await store.save(LABEL, replace(row, state="open", frontier=FrontierSnapshot(NUMBER)))
    assert (await store.lease(LABEL, SHARD)).frontier.low == NUMBER


@pytest.mark.parametrize("target", ["b", None])
async def test_a_hand_over_survives_a_fault(leases, fault, target):
    store = leases.store()
    row = await held(store)
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    await store.release(LABEL, replace(row, state="open"), target)
    found = await store.lease(LABEL, SHARD)
    assert (found.owner, found.state) == (target, "open")
    with pytest.raises(LeaseLost):
        await store.save(LABEL, row)


async def test_faults_without_end_are_reported(leases, fault):
    store = leases.store()
    row = await held(store)
    for write in (store.save(LABEL, row), store.release(LABEL, row, "b")):
        getattr(leases.link, fault)(*leases.WRITES, times=3)
        with pytest.raises(DependencyError):
            await write


async def test_a_bump_survives_a_fault(leases, fault):
    store = leases.store()
    await store.open_session(SessionRow("s"))
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    await store.bump_session("s", 1)
    assert (await store.sessions())[0].counter == 1


async def test_the_bump_after_one_without_answer_counts(leases, fault):
    store = leases.store()
    await store.open_session(SessionRow("s"))
    getattr(leases.link, fault)(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await store.bump_session("s", 1)
    await store.bump_session("s", 2)


async def test_a_session_opened_without_answer_is_open(leases, fault):
    getattr(leases.link, fault)(*leases.WRITES, times=1)
    await leases.store().open_session(SessionRow("s"))
    with pytest.raises(SessionFenced):
        await leases.store().open_session(SessionRow("s"))


async def test_the_rest_survives_a_fault(leases, fault):
    store = leases.store()

    faults = []

    def once_more():
        assert all(one.taken == 1 for one in faults)
        faults.append(getattr(leases.link, fault)(*leases.WRITES, times=1))

    once_more()
    await store.pin_application("orders")
    once_more()
    arn = "arn:aws:dynamodb:us-east-1:1:table/orders/stream/1"
    assert await store.switch_stream(None, arn) == arn
    once_more()
    registration = Registration("arn", 5.0, frozenset({"x"}))
    assert await store.register(LABEL, registration) == registration
    once_more()
    await store.add_lease(LABEL, LeaseRow(SHARD))
    row = await store.take(LABEL, LeaseRow(SHARD), "a", "n")
    once_more()
    await store.record_loss(LABEL, row, Loss("gap", SHARD, NUMBER, NUMBER, "trimmed", 5.0))
    assert len(await leases.losses(LABEL)) == 1
    once_more()
    await store.store_part(LABEL, row, PayloadPart("key", 0, 1, b"{}"))
    assert await leases.payload(LABEL, "key") == b"{}"
    await store.open_session(SessionRow("s"))
    once_more()
    await store.announce("s", handoffs=1, leaving=False)
    once_more()
    assert await store.fence_session("s", 0) is True
    once_more()
    await store.close_session("s")
    assert await store.sessions() == []
    once_more()
    assert await store.remove_lease(LABEL, await store.lease(LABEL, SHARD)) is True
    assert await store.leases(LABEL) == []
    assert all(one.taken == 1 for one in faults)


async def test_what_is_put_back_or_raised_survives_a_fault(leases, fault):
    store = leases.store()
    row = await held(store, "a")
    await store.open_session(SessionRow("a"))
    await leases.delete_lease(LABEL, SHARD)
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    await store.put_back(LABEL, row, "a")
    found = await store.lease(LABEL, SHARD)
    assert (found.owner, found.epoch) == ("a", row.epoch)
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    assert await store.raise_epoch(LABEL, found, 5)
    assert (await store.lease(LABEL, SHARD)).epoch > 5


# --- requests that arrive late ---------------------------------------------------------------------


async def test_a_save_that_arrives_late_does_not_undo_a_newer_one(leases):
    """Given up by its sender, applied by the table seconds later: the newer state and frontier stay."""
    store = leases.store()
    row = await held(store)
    late = leases.link.hold_request(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await store.save(LABEL, replace(row, state="open", frontier=FrontierSnapshot("5", "5")))
    newer = replace(row, state="draining", frontier=FrontierSnapshot(NUMBER, "5"))
    await store.save(LABEL, newer)
    await leases.deliver(late)
    found = await store.lease(LABEL, SHARD)
    assert (found.state, found.frontier) == ("draining", newer.frontier)
    await store.save(LABEL, replace(newer, state="done"))  # and the lease is still held
    assert (await store.lease(LABEL, SHARD)).state == "done"


@pytest.mark.parametrize("operation", ["save", "release"])
async def test_a_write_that_arrives_late_does_not_undo_a_row_that_was_put_back(leases, operation):
    """Given up by the owner, whose row was deleted meanwhile and the owner has put it back as it was by then: owner and
    epoch are the same as before, the write is older all the same."""
    store = leases.store()
    row = await held(store)
    older = replace(row, state="open", frontier=FrontierSnapshot("5", "5"))
    late = leases.link.hold_request(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await (store.save(LABEL, older) if operation == "save" else store.release(LABEL, older, "b"))
    await leases.delete_lease(LABEL, SHARD)
    newer = replace(row, state="open", frontier=FrontierSnapshot(NUMBER, "5"))
    await store.open_session(SessionRow("a"))
    assert await store.put_back(LABEL, newer, "a")
    await leases.deliver(late)
    found = await store.lease(LABEL, SHARD)
    assert (found.owner, found.epoch, found.frontier) == (row.owner, row.epoch, newer.frontier)
    await store.save(LABEL, replace(newer, state="draining"))  # and the lease is still held
    assert (await store.lease(LABEL, SHARD)).state == "draining"


async def test_a_save_overtaken_by_a_newer_one_is_not_a_lost_lease(leases):
    """The first attempt is on its way when a newer save is applied; its repetition is refused, and that is fine."""
    store = leases.store()
    row = await held(store)
    late = leases.link.hold_request(*leases.WRITES, times=1)
    older, newer = FrontierSnapshot("5", "5"), FrontierSnapshot(NUMBER, "5")
    await asyncio.gather(
        store.save(LABEL, replace(row, frontier=older)), store.save(LABEL, replace(row, frontier=newer))
    )
    await leases.deliver(late)
    assert (await store.lease(LABEL, SHARD)).frontier == newer


async def test_a_late_save_after_the_lease_was_passed_on_changes_nothing(leases):
    store = leases.store()
    row = await held(store)
    late = leases.link.hold_request(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await store.save(LABEL, replace(row, frontier=FrontierSnapshot("5", "5")))
    await store.release(LABEL, replace(row, frontier=FrontierSnapshot(NUMBER, "5")), None)
    await leases.deliver(late)
    found = await store.lease(LABEL, SHARD)
    assert (found.owner, found.frontier.low) == (None, NUMBER)
    again = await store.take(LABEL, found, "a", "n2")
    await store.save(LABEL, again)  # counting starts anew with every epoch
    other = leases.store()
    taken = await other.take(LABEL, await store.lease(LABEL, SHARD), "b", "n3")
    await other.save(LABEL, replace(taken, state="open"))
    assert (await store.lease(LABEL, SHARD)).state == "open"


async def test_a_second_store_of_the_same_owner_goes_on_from_the_row_it_read(leases):
    """A worker that is started again on its own lease numbers its writes above what the row shows."""
    store = leases.store()
    row = await held(store)
    for _ in range(3):
        await store.save(LABEL, row)
    again = leases.store()
    await again.save(LABEL, replace(await again.lease(LABEL, SHARD), state="open"))
    assert (await store.lease(LABEL, SHARD)).state == "open"


@pytest.mark.parametrize("targets", [("b", "b"), ("b", None), (None, None), (None, "b")])
async def test_a_hand_over_whose_every_answer_was_lost_is_recognised_when_repeated(leases, targets):
    """The caller tries again, maybe with another target: what was applied is ours, and nothing is written twice."""
    store = leases.store()
    row = await held(store)
    leases.link.lose_response(*leases.WRITES, times=3)
    with pytest.raises(DependencyError):
        await store.release(LABEL, row, targets[0])
    applied = await store.lease(LABEL, SHARD)
    assert applied.owner == targets[0]
    await store.release(LABEL, row, targets[1])
    assert await store.lease(LABEL, SHARD) == applied


async def test_a_hand_over_is_not_recognised_when_somebody_else_has_passed_the_lease_on(leases):
    store = leases.store()
    row = await held(store)
    await store.release(LABEL, row, "b")
    theirs = await store.lease(LABEL, SHARD)
    await leases.store().release(LABEL, theirs, None)
    with pytest.raises(LeaseLost):
        await store.release(LABEL, row, "b")


async def test_a_turn_whose_answer_was_lost_is_this_worker_s(leases, fault):
    store = leases.store()
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    assert await store.begin_listing(LABEL, Bulletin(), "a")
    assert not await store.begin_listing(LABEL, Bulletin(), "b")
    assert await store.bulletin(LABEL) == Bulletin(1, "a", listing=True)
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    await store.end_listing(LABEL, 1, "a")
    assert await store.bulletin(LABEL) == Bulletin(1, "a")


async def test_changes_whose_answer_was_lost_are_made_known(leases, fault):
    """Perhaps counted twice: the post that is not there is given up by its readers."""
    store, change = leases.store(), Change(SHARD, "a", 1, "open")
    getattr(leases.link, fault)(*leases.WRITES, times=2)
    number = await store.post(LABEL, [change])
    assert (await store.bulletin(LABEL)).posts >= number
    assert await store.posts(LABEL, 1, number) == [Post(number, (change,))]
