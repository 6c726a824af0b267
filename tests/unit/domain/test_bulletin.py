"""What changed last, and whose turn it is to list the stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.bulletin import HOLE_PATIENCE, MOST_POSTS, Bulletin, Change, ListingTurns, Post, Unread
from consumer.domain.lease import LeaseRow

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


def test_posts_do_not_move_the_turn() -> None:
    """A busy fleet must not put off its listings for ever."""
    found = turns(Bulletin(7, OTHER))
    found.observe(Bulletin(7, OTHER, posts=3, changes=40, rows=5), 130.0, 1.0)
    assert found.is_due(160.0, {OTHER}, wanted=False)


def test_a_change_of_a_shard_that_nobody_has_worked_on_says_all_that_matters_of_its_row() -> None:
    row = LeaseRow("s1", parents=("p1", "p2"), starting_sequence_number="7")
    assert Change.of(row) == Change("s1", None, 0, "waiting", ("p1", "p2"))
    assert Change.of(row).row == LeaseRow("s1", parents=("p1", "p2"))
    for worked_on in (replace(row, owner="w", epoch=1), replace(row, epoch=1), replace(row, owner="w")):
        assert Change.of(worked_on).parents == ()
        assert Change.of(worked_on).row is None


@pytest.mark.parametrize(
    ("change", "is_news"),
    [
        (Change("s1", "w", 5, "open"), False),  # it is known
        (Change("s1", "w", 5, "draining"), True),
        (Change("s1", None, 5, "done"), True),
        (Change("s1", "v", 6, "open"), True),
        (Change("s1", "v", 4, "done"), False),  # of an earlier owner
    ],
)
def test_what_a_change_says_that_is_not_known(change: Change, is_news: bool) -> None:
    assert change.is_news_of(LeaseRow("s1", owner="w", epoch=5, state="open")) is is_news


def test_what_is_done_stays_done_until_a_later_epoch() -> None:
    done = LeaseRow("s1", epoch=5, state="done")
    assert not Change("s1", "w", 5, "open").is_news_of(done)
    assert Change("s1", "w", 6, "open").is_news_of(done)


def post(number: int) -> Post:
    return Post(number, (Change(f"s{number}", None, number, "open"),))


def looking_since(posts: int) -> Unread:
    unread = Unread()
    assert not unread.observe(posts), "what was posted before is in the rows"
    return unread


def test_what_was_posted_since_the_first_look_is_unread_until_it_is_read() -> None:
    unread = looking_since(7)
    assert (unread.observe(7), unread.span, len(unread)) == (True, None, 0)
    assert (unread.observe(10), unread.span, len(unread)) == (True, (8, 10), 3)
    assert unread.read((8, 9), [post(9), post(8)], 0.0) == [post(8), post(9)]
    assert (unread.span, len(unread)) == ((10, 10), 1)
    assert unread.read((10, 10), [post(10), post(8)], 0.0) == [post(10)], "each is new once"
    assert unread.span is None


def test_own_posts_are_not_read() -> None:
    unread = looking_since(0)
    unread.made(1)  # told by the answer, before it is seen in the bulletin
    assert unread.observe(2)
    assert unread.span == (2, 2)
    unread.made(2)  # seen before the answer came
    assert unread.span is None
    unread.made(4)
    assert unread.observe(4)
    assert unread.span == (3, 3)


def test_a_post_that_is_counted_and_not_there_is_waited_for_and_then_given_up() -> None:
    unread = looking_since(0)
    assert unread.observe(3)
    assert unread.read((1, 2), [post(2)], 100.0) == [post(2)]
    assert not unread.give_up(100.0 + HOLE_PATIENCE), "it may be on its way"
    assert unread.read((1, 3), [post(1)], 101.0) == [post(1)]
    assert not unread.give_up(101.0 + HOLE_PATIENCE), "missed only since then"
    assert unread.span == (3, 3)
    assert unread.give_up(101.1 + HOLE_PATIENCE), "all rows are to be read"
    assert not unread.give_up(1e9)
    assert unread.observe(3)
    assert unread.span is None


def test_a_post_that_was_never_looked_for_is_not_given_up() -> None:
    unread = looking_since(0)
    assert unread.observe(2)
    unread.read((1, 1), [post(1)], 100.0)
    assert not unread.give_up(1e9)
    assert unread.span == (2, 2)


def test_posts_whose_places_later_ones_have_are_told_and_the_others_are_read() -> None:
    unread = looking_since(4)
    assert unread.observe(4 + MOST_POSTS), "all of them are there"
    assert not unread.observe(7 + MOST_POSTS), "all rows are to be read"
    assert unread.span == (8, 7 + MOST_POSTS)
    assert unread.observe(7 + MOST_POSTS), "once"
    assert not unread.observe(10 * MOST_POSTS)
    assert unread.span == (9 * MOST_POSTS + 1, 10 * MOST_POSTS)


def test_a_table_that_was_made_anew_counts_its_posts_from_the_start() -> None:
    unread = looking_since(4)
    unread.made(6)
    assert unread.observe(5)
    assert not unread.observe(3)
    assert unread.span is None
    assert unread.observe(6)
    assert unread.span == (4, 6)


@given(st.data())
def test_every_post_of_another_worker_is_read_once_or_missed_loudly(data: st.DataObject) -> None:
    """Posts are counted first and put down later, or never; some are this worker's own; portions are read."""
    unread, there, read = looking_since(0), set[int](), list[int]()
    counted, mine, lost, now = 0, set[int](), False, 0.0
    for _ in range(data.draw(st.integers(1, 25))):
        for _ in range(data.draw(st.integers(0, 3))):
            counted += 1
            if data.draw(st.booleans()):
                mine.add(counted)
                unread.made(counted)
        there |= {number for number in range(1, counted + 1) if data.draw(st.integers(0, 3))}
        now += data.draw(st.sampled_from([0.5, 1.0, HOLE_PATIENCE + 1.0]))
        assert unread.observe(counted)
        if (span := unread.span) is not None:
            span = span[0], min(span[1], span[0] + data.draw(st.integers(0, 5)))
            found = [post(number) for number in there if span[0] <= number <= span[1]]
            read += (new.number for new in unread.read(span, found, now))
            lost |= unread.give_up(now)
    others = set(range(1, counted + 1)) - mine
    assert len(read) == len(set(read))
    assert set(read) <= others
    assert lost or others - set(read) == set(range(1, counted + 1)) & set(unread._unread)
