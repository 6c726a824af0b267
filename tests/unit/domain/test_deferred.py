"""The deferred keys of a shard: what is stored, what is read again, and when an entry may go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.deferred import (
    BEGINNING,
    BYTES_PER_KEY,
    DeferredKey,
    DeferredKeys,
    blocked_by_parents,
    digest_of,
)

A, B = "a" * 16, "b" * 16


def deferred(number: str = "10", in_memory: int = 1, size: int = 100) -> DeferredKeys:
    """One key, deferred from ``number`` on while some of its records are still held."""
    keys = DeferredKeys()
    keys.defer(A, number, 1000.0, in_memory, size)
    return keys


@given(st.binary(), st.binary())
def test_digests_are_short_text_that_differs(one: bytes, other: bytes) -> None:
    """They stand in a row and in logs, so they say nothing of the key, and never need an escape."""
    assert len(digest_of(one)) == 16
    assert set(digest_of(one)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert (digest_of(one) == digest_of(other)) is (one == other)


def test_an_entry_is_stored_and_comes_back() -> None:
    """Whether the number itself is settled survives, too."""
    stored = (DeferredKey(A, "10", False, 5.0), DeferredKey(B, "20", True, 7.0))
    keys = DeferredKeys(stored)
    assert keys.snapshot() == stored
    assert keys.version == 0, "nothing to store"
    keys.in_pass = dict.fromkeys((A, B))
    assert [keys.is_wanted(A, number) for number in (9, 10, 11)] == [False, True, True]
    assert [keys.is_wanted(B, number) for number in (19, 20, 21)] == [False, False, True]
    assert keys.in_memory == 0
    assert (len(keys), A in keys, "c" in keys) == (2, True, False)


def test_the_first_reader_drops_what_is_not_settled() -> None:
    """Settled records, records of other keys, and everything after the meeting are not its business."""
    keys = deferred()
    assert keys.drops(A, 10)
    assert keys.drops(A, 11)
    assert not keys.drops(A, 9)
    assert not keys.drops(B, 11)
    keys.met(A)
    assert keys.has_met(A)
    assert not keys.drops(A, 12)


def test_a_key_is_read_again_when_nothing_of_it_is_in_memory() -> None:
    """Nor before its parents let it go, and not twice."""
    keys = deferred(in_memory=2)
    assert keys.ready(lambda _: False) == []
    keys.settled(A, "10", 1000.0)
    assert keys.ready(lambda _: False) == []
    keys.settled(A, "13", 1003.0)
    (ready,) = keys.ready(lambda _: False)
    assert ready == DeferredKey(A, "13", True, 1003.0)
    assert keys.ready(lambda key: key.digest == A) == []
    keys.takes(A, 50)
    assert keys.ready(lambda _: False) == []


def test_an_entry_goes_when_the_last_record_below_the_meeting_is_settled() -> None:
    """Not with the meeting, as long as one of them is in memory, and not with the last in memory before the meeting."""
    keys = deferred(in_memory=1)
    keys.settled(A, "10", 1000.0)
    assert A in keys, "records were dropped"
    keys.takes(A, 50)
    keys.takes(A, 50)
    keys.met(A)
    keys.settled(A, "11", 1001.0)
    assert keys.snapshot() == (DeferredKey(A, "11", True, 1001.0),)
    version = keys.version
    keys.settled(A, "12", 1002.0)
    assert (keys.snapshot(), keys.version > version) == ((), True)
    keys = DeferredKeys([DeferredKey(A, "10")])
    keys.met(A)
    assert len(keys) == 0, "nothing was found between"


def test_a_key_that_fails_again_keeps_its_number_and_leaves_the_meeting() -> None:
    """Its records behind the meeting are dropped once more, so it has to catch up from where it is."""
    keys = deferred(in_memory=0)
    keys.takes(A, 50)
    keys.takes(A, 50)
    keys.met(A)
    keys.defer(A, "15", 1500.0, 1, 50)
    assert keys.snapshot() == (DeferredKey(A, "10", False, 1000.0),)
    assert not keys.has_met(A)
    assert keys.drops(A, 20)
    assert keys.in_memory == 1


def test_bounds_of_what_is_held() -> None:
    """Of a key by records and by bytes; of all by their count; and what the entries take themselves."""
    keys = DeferredKeys(most=2)
    keys.defer(A, "10", 1000.0, 1, 100)
    assert keys.room == 1
    assert keys.is_full_of(A, 1, 1000)
    assert not keys.is_full_of(A, 2, 1000)
    assert keys.is_full_of(A, 2, 100)
    keys.settled(A, "10", 1000.0, 100)
    assert not keys.is_full_of(A, 1, 1)
    keys.defer(B, "11", 1000.0, 0)
    assert keys.room == 0
    assert keys.size == 2 * BYTES_PER_KEY
    assert keys.in_memory == 0


def test_lost_records_move_the_number_forward_only() -> None:
    """What was trimmed is settled by its trace; the first record that is left is not."""
    keys = deferred(in_memory=0)
    keys.lost(A, "30", 1030.0)
    assert keys.snapshot() == (DeferredKey(A, "30", False, 1030.0),)
    version = keys.version
    keys.lost(A, "20", 1020.0)
    keys.lost(A, "30", 1030.0)
    assert (keys.snapshot(), keys.version) == ((DeferredKey(A, "30", False, 1030.0),), version)


def test_the_oldest_record_behind_a_deferred_key() -> None:
    """Lag is counted from it: the creation time moves on with what is settled, and an unknown one counts for nothing
    until a record of the key is met."""
    keys = DeferredKeys([DeferredKey(A, BEGINNING), DeferredKey(B, "20", since=900.0)])
    assert keys.oldest() == 900.0
    assert keys.drops(A, 5, 700.0)
    assert keys.oldest() == 700.0
    assert keys.drops(A, 6, 800.0)
    assert keys.oldest() == 700.0, "the first one is the oldest"
    keys.takes(A, 1)
    keys.settled(A, "5", 710.0)
    assert keys.oldest() == 710.0
    assert DeferredKeys().oldest() == 0.0


def test_a_key_from_the_beginning_waits_for_a_parent() -> None:
    """Until something of it is settled here."""
    keys = DeferredKeys([DeferredKey(A, BEGINNING)])
    (key,) = keys.snapshot()
    assert key.waits_for_parent
    keys.takes(A, 1)
    keys.settled(A, "5", 0.0)
    (key,) = keys.snapshot()
    assert not key.waits_for_parent


@pytest.mark.parametrize("created", [0.0, 700.0])
def test_a_key_that_waits_for_a_parent_says_whether_records_of_it_are_here(created: float) -> None:
    """Also to the next owner, and also when the service gives no time."""
    keys = DeferredKeys([DeferredKey(A, BEGINNING)])
    assert not keys.snapshot()[0].has_records
    version = keys.version
    assert keys.drops(A, 5, created)
    (key,) = keys.snapshot()
    assert (key.has_records, key.waits_for_parent, keys.version > version) == (True, True, True)
    assert DeferredKeys([key]).drops(A, 5, created), "it is read again after a restart"


def test_a_key_that_was_deferred_here_has_records() -> None:
    assert deferred().snapshot()[0].has_records


@pytest.mark.parametrize(
    ("parents", "blocked"),
    [
        ([], False),
        ([()], False),
        ([(B,)], False),
        ([(A,)], True),
        ([(B, A)], True),
        ([None], True),
        ([(), None], True),
        ([(B,), (B, A)], True),
    ],
)
def test_blocked_by_parents(parents: list[tuple[str, ...] | None], *, blocked: bool) -> None:
    """A parent that has not come to its end may still defer the key; one that has come lists it, or is through."""
    assert blocked_by_parents(DeferredKey(A, BEGINNING), parents) is blocked


@given(st.data())
def test_every_change_of_what_is_stored_grows_the_version(data: st.DataObject) -> None:
    """Or a checkpoint would leave it out."""
    keys = DeferredKeys()
    for number in range(1, data.draw(st.integers(1, 20)) + 1):
        before, version = keys.snapshot(), keys.version
        step = data.draw(st.sampled_from(["defer", "take", "settle", "meet", "lose"]))
        known = A in keys
        if step == "defer":
            keys.defer(A, str(number), float(number), data.draw(st.integers(0, 2)))
        elif known and step == "take":
            keys.takes(A, 1)
        elif known and step == "settle" and keys.in_memory:
            keys.settled(A, str(number), float(number))
        elif known and step == "meet":
            keys.met(A)
        elif known and step == "lose":
            keys.lost(A, str(number), float(number))
        assert keys.version > version or keys.snapshot() == before
