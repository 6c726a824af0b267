"""What changed last, and whose turn it is to list the stream."""

from __future__ import annotations

import pytest

from consumer.domain.bulletin import MOST_CHANGES, Bulletin, Change, ListingTurns

ME, OTHER = "me/1/x/10s", "other/1/x/10s"


def turns(bulletin: Bulletin, at: float = 100.0) -> ListingTurns:
    """As seen first at ``at``."""
    found = ListingTurns(ME, regular=60.0, soon=5.0, patience=30.0)
    found.observe(bulletin, at, 1.0)
    return found


@pytest.mark.parametrize(
    ("bulletin", "regular", "wanted"),
    [
        (Bulletin(), 0.0, 0.0),  # nobody has ever listed
        (Bulletin(7, OTHER), 60.0, 5.0),
        (Bulletin(7, OTHER, listing=True), 60.0, 30.0),  # a listing that does not end is given up
        (Bulletin(7, "gone/1/x/10s"), 5.0, 5.0),  # the worker that listed is gone, or the table was wiped
        (Bulletin(7, "gone/1/x/10s", listing=True), 5.0, 5.0),
        (Bulletin(7, "starting"), 0.0, 0.0),  # for where to start, and not for the shards
        (Bulletin(7, "starting", listing=True), 5.0, 5.0),
        (Bulletin(7, ""), 5.0, 5.0),  # it failed
        (Bulletin(7, ME), 60.0, 5.0),
        (Bulletin(7, ME, listing=True), 60.0, 5.0),  # its end was not written
    ],
)
def test_when_a_listing_is_due(bulletin: Bulletin, regular: float, wanted: float) -> None:
    """Seconds after the bulletin was seen first; seeing it again changes nothing."""
    for after, is_wanted in ((regular, False), (wanted, True)):
        found = turns(bulletin)
        found.observe(bulletin, 102.0, 1.0)
        assert found.is_due(100.0 + after, {ME, OTHER}, wanted=is_wanted)
        if after:
            assert not found.is_due(100.0 + after - 0.1, {ME, OTHER}, wanted=is_wanted)


def test_nothing_is_due_before_the_bulletin_was_read() -> None:
    assert not ListingTurns(ME, regular=60.0, soon=5.0, patience=30.0).is_due(1e9, {ME}, wanted=True)


def test_a_listing_that_failed_is_repeated_then_unless_another_worker_had_a_turn() -> None:
    found = turns(Bulletin(8, ME, listing=True))
    found.failed(102.0)
    found.observe(Bulletin(8, ""), 100.5, 1.0)
    assert not found.is_due(101.9, {ME, OTHER}, wanted=True)
    assert found.is_due(102.0, {ME, OTHER}, wanted=True)
    found.observe(Bulletin(9, OTHER), 103.0, 1.0)
    assert not found.is_due(107.9, {ME, OTHER}, wanted=True)
    assert found.is_due(108.0, {ME, OTHER}, wanted=True)


def test_workers_that_are_late_by_different_parts_do_not_want_the_turn_at_once() -> None:
    found = ListingTurns(ME, regular=60.0, soon=5.0, patience=30.0)
    found.observe(Bulletin(1, OTHER), 0.0, 1.2)
    assert not found.is_due(71.9, {OTHER}, wanted=False)
    assert found.is_due(72.1, {OTHER}, wanted=False)


def changes(first: int, last: int) -> list[Change]:
    return [Change(f"s{number}", None, number, "open") for number in range(first, last + 1)]


def test_a_reader_gets_what_it_missed_or_learns_that_it_cannot() -> None:
    bulletin = Bulletin().with_changes(changes(1, 10)).with_changes(changes(11, MOST_CHANGES + 5))
    assert bulletin.number == MOST_CHANGES + 5
    assert list(bulletin.changes) == changes(6, MOST_CHANGES + 5)
    assert bulletin.since(MOST_CHANGES + 5) == ()
    assert bulletin.since(MOST_CHANGES) == tuple(changes(MOST_CHANGES + 1, MOST_CHANGES + 5))
    assert bulletin.since(5) == tuple(changes(6, MOST_CHANGES + 5))
    assert bulletin.since(4) is None
    assert bulletin.since(MOST_CHANGES + 6) is None, "the table was made anew"


def test_more_changes_than_a_bulletin_names_count_all() -> None:
    bulletin = Bulletin(number=7).with_changes(changes(1, 5000))
    assert (bulletin.number, len(bulletin.changes)) == (5007, MOST_CHANGES)
    assert bulletin.since(7) is None


def test_changes_do_not_move_the_turn() -> None:
    """A busy fleet must not put off its listings for ever."""
    found = turns(Bulletin(7, OTHER))
    found.observe(Bulletin(7, OTHER).with_changes(changes(1, 3)), 130.0, 1.0)
    assert found.is_due(160.0, {OTHER}, wanted=False)
