"""The slots of a shard: a batch that suspends its permit gets a slot again, before any new batch."""

from __future__ import annotations

import asyncio

import pytest

from consumer.worker.shard.batch_slots import MAX_SUSPENDED, BatchSlots, SlotPermit


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_slot_that_is_given_up_is_free_at_once_and_only_once() -> None:
    freed: list[int] = []
    slots = BatchSlots(1, lambda: freed.append(slots.taken))
    permit = slots.take()
    assert not slots.free
    permit.suspend()
    permit.suspend()
    assert (freed, slots.taken, slots.suspended) == ([0], 0, 1)
    await permit.resume()
    assert (slots.taken, slots.suspended, slots.free) == (1, 0, False)
    permit.release()
    assert slots.free


async def resuming(slots: BatchSlots, count: int) -> tuple[list[SlotPermit], list[asyncio.Task[None]]]:
    """So many batches that resume one after the other and find every slot taken."""
    away = []
    for _ in range(count):
        away.append(slots.take())
        away[-1].suspend()
    taken = [slots.take()]
    tasks = [asyncio.create_task(permit.resume()) for permit in away]
    await settle()
    assert slots.is_awaited
    assert not any(task.done() for task in tasks)
    return taken + away, tasks


async def test_a_batch_that_resumes_waits_in_line_and_the_slot_is_passed_on() -> None:
    slots = BatchSlots(1, lambda: None)
    (holder, first, second), tasks = await resuming(slots, 2)
    for ending, waits in ((holder, [True, False]), (first, [True, True])):
        ending.release()
        await settle()
        assert [task.done() for task in tasks] == waits
        assert slots.taken == 1, "no new batch gets in between"
    assert not slots.is_awaited
    second.release()
    assert (slots.taken, slots.suspended) == (0, 0)


@pytest.mark.parametrize("given", ["before", "at once", "later"])
async def test_cancelled_while_it_waits_no_slot_is_lost(given: str) -> None:
    """Also when a slot is given back around that moment: then the next one gets it."""
    slots = BatchSlots(1, lambda: None)
    (holder, first, second), tasks = await resuming(slots, 2)
    if given == "before":
        holder.release()
    tasks[0].cancel()
    if given == "at once":
        holder.release()
    await settle()
    assert tasks[0].cancelled()
    first.release()
    if given == "later":
        holder.release()
    await settle()
    assert tasks[1].done()
    second.release()
    assert (slots.taken, slots.suspended, slots.is_awaited) == (0, 0, False)


async def test_too_many_suspended_batches_keep_their_slots() -> None:
    slots = BatchSlots(MAX_SUSPENDED + 1, lambda: None)
    held = [slots.take() for _ in range(MAX_SUSPENDED + 1)]
    for permit in held:
        permit.suspend()
    assert (slots.taken, slots.suspended, held[-1].suspended) == (1, MAX_SUSPENDED, False)
    for permit in held:
        permit.release()
    assert (slots.taken, slots.suspended) == (0, 0)
