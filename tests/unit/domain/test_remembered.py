"""What comes back of deleted rows, by how old the memory of it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import EPOCHS_PER_SECOND, OWNERS_PER_SECOND, LeaseRow, epoch_beyond
from consumer.domain.remembered import MAX_READING_AGE, Remembered
from consumer.domain.shards import TOMBSTONE_AGE

D = 10.0
MINE = LeaseRow("s", epoch=3, state="open", frontier=FrontierSnapshot("7"))
OWNED = replace(MINE, owner="host/1/u/60s")


def patience(shard_id: str) -> float:
    return 5.0


def read(memory: Remembered, at: float, *rows: LeaseRow) -> None:
    memory.read({row.shard_id: row for row in rows}, at, at + 0.1)


def looked_at(at: float, *rows: LeaseRow) -> Remembered:
    """A memory whose last reading was at ``at``."""
    memory = Remembered(D)
    read(memory, at, *rows)
    return memory


def test_a_deleted_row_without_an_owner_comes_back_at_once() -> None:
    memory = looked_at(0.0, MINE)
    assert memory.due(0.2) == []
    read(memory, 5.0)
    assert (memory.due(5.2), memory.is_missing("s"), memory.rows) == ([MINE], True, {"s": MINE})
    read(memory, 6.0, MINE)
    assert (memory.due(6.2), memory.is_missing("s")) == ([], False)


def test_the_owner_has_two_of_its_own_durations_to_put_its_row_back() -> None:
    memory = looked_at(0.0, OWNED)
    for at in range(5, 130, 5):
        read(memory, float(at))
        assert bool(memory.due(at + 0.2)) == (at >= 5.1 + 2 * 60.0 - 0.2)


def test_a_finished_row_does_not_come_back() -> None:
    memory = looked_at(0.0, replace(MINE, state="done"))
    read(memory, 5.0)
    assert (memory.due(100.0), memory.is_missing("s")) == ([], False)


@pytest.mark.parametrize("gap", [5.0, 1e5])
def test_that_a_shard_was_finished_is_known_for_as_long_as_its_tombstone_lasts(gap: float) -> None:
    """However long this worker slept: nobody opens again what was finished. A row that a worker without memory has made
    anew counts, but its epochs do not repeat."""
    memory = looked_at(0.0, replace(MINE, state="done"))
    assert not memory.was_finished("s")
    read(memory, gap)
    read(memory, gap + 1.0)
    assert memory.was_finished("s")
    made_anew = LeaseRow("s")
    assert memory.is_behind(made_anew)
    read(memory, gap + 2.0, made_anew)
    assert (memory.was_finished("s"), memory.is_behind(made_anew)) == (False, True)
    read(memory, gap + 3.0, replace(MINE, state="done"))
    read(memory, gap + 4.0)
    read(memory, gap + TOMBSTONE_AGE + 10.0)
    assert not memory.was_finished("s"), "the service has forgotten it long since"


@pytest.mark.parametrize("gap", [2 * D + 0.1, 3600.0, 1e6])
def test_an_old_memory_alone_brings_nothing_back(gap: float) -> None:
    memory = looked_at(0.0, MINE)
    read(memory, gap)
    for at in range(0, 100, 5):
        read(memory, gap + at)
        assert memory.due(gap + at + 0.2) == []
    assert (memory.is_missing("s"), memory.has_old, memory.rows) == (True, True, {})


def test_a_row_that_was_missed_in_time_is_old_after_a_sleep() -> None:
    """Missed, and due; but then this worker slept. Others have had all the time to put it back and to finish it."""
    memory = looked_at(0.0, OWNED)
    read(memory, 5.0)
    assert memory.due(1e6) == [], "it has not even looked"
    read(memory, 1e6)
    assert (memory.due(1e6 + 0.2), memory.has_old) == ([], True)


def test_who_looks_all_the_time_has_not_slept_however_seldom_it_reads_all_rows() -> None:
    """A large fleet: the bulletin every second or so, all rows every hour."""
    memory = looked_at(0.0, MINE)
    for at in range(15, 3600, 15):
        memory.look(float(at))
    read(memory, 3600.0)
    assert (memory.has_slept, memory.has_old, memory.due(3600.2)) == (False, False, [MINE])
    for at in range(3615, 7200, 15):
        memory.look(float(at))
        assert memory.due(at + 0.2) == [MINE]


def test_one_gap_between_two_looks_makes_old_what_was_read_before_it() -> None:
    memory = looked_at(0.0, MINE, replace(MINE, shard_id="gone"))
    read(memory, 5.0, MINE)
    memory.look(1000.0)
    assert (memory.has_slept, memory.due(1000.2)) == (True, []), "others have been there"
    read(memory, 999.0)
    assert (memory.has_slept, memory.has_old) == (True, True), "asked for before it woke up"
    read(memory, 1001.0)
    assert (memory.has_slept, memory.has_old, memory.due(1001.2)) == (False, True, [])


def test_looks_alone_are_no_reading_for_days() -> None:
    """It cannot read all rows, and the bulletin names only the last changes."""
    memory = looked_at(0.0, MINE)
    for at in range(15, int(MAX_READING_AGE) + 30, 15):
        memory.look(float(at))
    assert memory.has_slept
    read(memory, MAX_READING_AGE + 30.0)
    assert (memory.has_old, memory.due(MAX_READING_AGE + 30.2)) == (True, [])


def test_a_row_that_was_read_alone_is_not_missing_and_its_epoch_counts() -> None:
    memory = looked_at(0.0, MINE)
    read(memory, 5.0)
    memory.note(replace(MINE, epoch=9))
    assert (memory.is_missing("s"), memory.due(5.2), memory.highest("s")) == (False, [], 9)
    memory = looked_at(0.0, MINE)
    read(memory, 1000.0)
    memory.note(MINE)
    assert (memory.is_missing("s"), memory.has_old) == (False, False)


def test_a_listing_that_names_the_shard_makes_an_old_memory_good() -> None:
    memory = looked_at(0.0, MINE)
    read(memory, 1000.0)
    memory.named(["s"], 999.0)
    assert memory.due(1000.2) == [], "asked before the row was missed: maybe before the sleep"
    memory.named(["other"], 1001.0)
    assert memory.due(1001.0) == []
    memory.named(["s"], 1001.0)
    assert memory.due(1001.2) == [MINE]


def test_children_that_have_been_started_say_that_their_parent_was_settled() -> None:
    """Its tombstone was removed; the service still names it, as a listing that is out of date does."""
    child = LeaseRow("c", parents=("s",), state="open")
    for started, comes_back in ((child, False), (replace(child, state="waiting"), True)):
        memory = looked_at(0.0, MINE)
        read(memory, 1000.0, started)
        memory.named(["s"], 1001.0)
        assert bool(memory.due(1001.2)) == comes_back
    held_back = replace(child, frontier=FrontierSnapshot(deferred=(DeferredKey("a", BEGINNING),)))
    memory = looked_at(0.0, replace(MINE, state="deferred"))
    read(memory, 1000.0, held_back)
    memory.named(["s"], 1001.0)
    assert memory.due(1001.2), "the child waits for a key of its parent"


def test_complete_listings_without_the_shard_end_an_old_memory() -> None:
    """One is not enough, whatever one listing leaves out."""
    memory = looked_at(0.0, MINE)
    read(memory, 1000.0)
    assert memory.listed({"x"}, 999.0, patience) == []
    assert memory.listed({"x"}, 1001.0, patience) == []
    assert memory.listed({"x"}, 1005.9, patience) == []
    assert memory.listed({"x"}, 1006.0, patience) == [MINE]
    assert (memory.is_missing("s"), memory.has_old) == (False, False)
    memory.named(["s"], 1007.0)
    assert memory.due(1007.0) == []


def test_what_an_owner_knew_counts_when_its_row_is_deleted_unless_others_went_on() -> None:
    knew = replace(OWNED, frontier=FrontierSnapshot("9"))
    memory = looked_at(0.0, OWNED)
    memory.remember(knew)
    read(memory, 5.0)
    assert memory.due(5.2) == [replace(knew, owner=None)]
    for later in (replace(OWNED, epoch=4), replace(MINE, state="done")):
        memory = looked_at(0.0, later)
        memory.remember(knew)
        assert memory.rows == {"s": later}
    memory = looked_at(0.0, OWNED)
    memory.remember(replace(knew, state="done"))
    read(memory, 5.0)
    assert (memory.due(5.2), memory.was_finished("s")) == ([], True)
    memory = looked_at(0.0)
    memory.remember(knew)
    assert memory.rows == {}, "finished and removed, as far as this worker knows"


def test_what_an_owner_knew_is_as_old_as_the_last_reading() -> None:
    """It slept, and its shard worker ends after the reading that missed the row."""
    memory = looked_at(0.0, OWNED)
    read(memory, 1000.0)
    memory.remember(replace(OWNED, frontier=FrontierSnapshot("9")))
    assert memory.due(2000.0) == []
    memory.named(["s"], 1001.0)
    assert [row.frontier.low for row in memory.due(1001.2)] == ["9"]


def test_a_reading_that_was_overtaken_says_nothing() -> None:
    memory = looked_at(5.0, MINE)
    read(memory, 4.0)
    assert not memory.is_missing("s")
    read(memory, 4.0, replace(MINE, epoch=2))
    assert memory.rows == {"s": MINE}


def test_an_epoch_below_one_that_was_seen_is_behind() -> None:
    memory = looked_at(0.0, MINE)
    lower = replace(MINE, epoch=2)
    assert (memory.is_behind(lower), memory.is_behind(MINE)) == (True, False)
    read(memory, 5.0, lower)
    assert (memory.is_behind(lower), memory.highest("s")) == (True, 3)
    read(memory, 6.0)
    read(memory, 7.0, LeaseRow("s"))
    assert memory.is_behind(LeaseRow("s")), "made anew by a worker that remembers nothing"
    assert not memory.is_behind(LeaseRow("s", state="done"))
    assert not memory.is_behind(LeaseRow("other"))
    read(memory, 8.0, LeaseRow("s", epoch=2**50))
    assert memory.highest("s") == 2**50


def test_an_epoch_from_memory_is_above_all_that_may_have_been() -> None:
    """Whoever was owner meanwhile: no shard changes its owner a million times a second."""
    now = 1_767_225_600.7
    one = epoch_beyond(3, now, 5)
    assert one > 3 + (now - 1) * EPOCHS_PER_SECOND
    assert abs(epoch_beyond(3, now, 6) - one) == OWNERS_PER_SECOND
    assert epoch_beyond(3, now + 1, 0) > epoch_beyond(3, now, 2**16 - 1)
    assert epoch_beyond(one + 10, now, 5) == one + 11, "also when that clock stands still"
    assert epoch_beyond(3, 8e9, 2**16 - 1) < 2**53, "a number that JavaScript reads exactly, until the year 2223"
