"""The frontier against a naive set of settled numbers, over restarts and crashes."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Collection

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.frontier import (
    BYTES_PER_STRETCH,
    MAX_RUNS_BYTES,
    Frontier,
    FrontierSnapshot,
    SettledFilter,
    rewound,
)

# Gaps between numbers: neighbours, ordinary distances, and jumps over the 21st to the 40th digit.
GAPS = st.one_of(st.just(1), st.integers(1, 10**4), st.integers(10**20, 10**38))
BASES = st.sampled_from([1, 10**20 - 2, 10**21 - 3, 99 * 10**19, 10**38])


def stream(base: int, gaps: list[int]) -> list[str]:
    numbers, number = [], base
    for gap in gaps:
        number += gap
        numbers.append(str(number))
    return numbers


def settle(frontier: Frontier, numbers: list[str], positions: Collection[int]) -> None:
    """Settle the records at these positions, of which ``numbers`` has every number by position."""
    ordered = sorted(positions)
    frontier.settle(ordered, [numbers[position] for position in ordered])


STREAMS = st.builds(stream, BASES, st.lists(GAPS, min_size=1, max_size=40))


@given(numbers=STREAMS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_snapshot_and_filter_agree_with_the_set_of_settled_records(numbers: list[str], data: st.DataObject) -> None:
    """Records settled in any order, tracked in any pages: exactly they, and nothing tracked else, are settled."""
    frontier, settled, tracked = Frontier(), set[int](), 0
    while tracked < len(numbers):
        page = data.draw(st.integers(1, len(numbers) - tracked))
        positions = frontier.track(numbers[tracked : tracked + page])
        assert positions == range(tracked, tracked + page)
        tracked += page
        open_ones = [index for index in range(tracked) if index not in settled]
        now = data.draw(st.lists(st.sampled_from(open_ones), unique=True)) if open_ones else []
        version = frontier.version
        settle(frontier, numbers, now)
        assert (frontier.version > version) is bool(now)
        settled |= set(now)
        snapshot = frontier.snapshot()
        known = SettledFilter(snapshot)
        assert [int(number) in known for number in numbers] == [index in settled for index in range(len(numbers))]
        assert frontier.outstanding == tracked - len(settled)
        done = next((index for index in range(len(numbers)) if index not in settled), len(numbers))
        assert snapshot.low == frontier.low == (numbers[done - 1] if done else None)
        assert frontier.oldest == done
        assert frontier.newest == int(numbers[tracked - 1])
        stretches = sum(one in settled and one - 1 not in settled for one in range(done, tracked))
        assert len(snapshot.runs) == stretches
        assert frontier.size == stretches * BYTES_PER_STRETCH
        assert snapshot.first == numbers[0]
        assert known.top == max([-1, *(int(numbers[index]) for index in settled)])
        if settled:
            assert known.top + 1 not in known
        assert int(numbers[0]) - 1 not in known or 0 in settled


@given(numbers=STREAMS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_chains_of_crashes_and_restarts_lose_and_invent_nothing(numbers: list[str], data: st.DataObject) -> None:
    """Each owner re-reads a part, settles what it likes, stores now and then, and dies: what was stored as settled
    stays so, and what nobody settled never becomes so."""
    stored, settled = FrontierSnapshot(), set[str]()
    for _ in range(data.draw(st.integers(1, 6))):
        before = {number for number in numbers if int(number) in SettledFilter(stored)}
        frontier, known = Frontier(stored), SettledFilter(stored)
        by_position: list[str] = []
        start = 0 if stored.low is None else numbers.index(stored.low) + 1
        unsettled: list[int] = []
        names: dict[int, str] = {}
        while start < len(numbers) and data.draw(st.booleans()):
            page = numbers[start : start + data.draw(st.integers(1, 8))]
            start += len(page)
            by_position += page
            for index, number in zip(frontier.track(page), page, strict=True):
                names[index] = number
                if int(number) in known:
                    settle(frontier, by_position, [index])
                else:
                    unsettled.append(index)
            done = data.draw(st.lists(st.sampled_from(unsettled), unique=True)) if unsettled else []
            settle(frontier, by_position, done)
            unsettled = [index for index in unsettled if index not in done]
            settled |= {names[index] for index in done}
            if data.draw(st.booleans()):
                snapshot = frontier.snapshot()
                now = {number for number in numbers if int(number) in SettledFilter(snapshot)}
                in_memory = before | {names[index] for index in names if index not in unsettled}
                assert now == in_memory, "the snapshot is what this owner knows, neither more nor less"
                stored = snapshot
                assert stored.first in (None, numbers[0])
    assert {number for number in numbers if int(number) in SettledFilter(stored)} <= settled


@pytest.mark.parametrize("digits", [21, 40])
def test_runs_are_bounded_and_the_oldest_are_kept(digits: int) -> None:
    """Beyond 4 KiB the newest runs are forgotten: duplicates, never a lost record."""
    numbers = [str(10 ** (digits - 1) + index) for index in range(1000)]
    frontier = Frontier()
    frontier.track(numbers)
    settle(frontier, numbers, range(1, 1000, 2))
    runs = frontier.snapshot().runs
    assert sum(len(first) + len(last) for first, last in runs) <= MAX_RUNS_BYTES
    assert len(runs) >= MAX_RUNS_BYTES // (2 * digits + 7)
    assert runs == tuple((number, number) for number in numbers[1 : 2 * len(runs) : 2])
    settle(frontier, numbers, range(0, 1000, 2))
    assert frontier.snapshot() == FrontierSnapshot(low=numbers[-1], first=numbers[0])


def test_forgotten_runs_are_handled_again_and_known_ones_are_not() -> None:
    """After a restart from a bounded snapshot the filter is exact up to its top and empty above."""
    numbers = [str(10**30 + index) for index in range(1000)]
    frontier = Frontier()
    frontier.track(numbers)
    settle(frontier, numbers, range(1, 1000, 2))
    known = SettledFilter(frontier.snapshot())
    settled = [index for index, number in enumerate(numbers) if int(number) in known]
    assert settled == list(range(1, 2 * len(settled), 2))
    assert known.top == int(numbers[settled[-1]])


def test_numbers_are_compared_as_integers() -> None:
    """21 nines lie below a one with 21 zeros; as text they would not."""
    nines, round_one = "9" * 21, "1" + "0" * 21
    frontier = Frontier()
    frontier.track([nines, round_one])
    frontier.settle([1], [round_one])
    known = SettledFilter(frontier.snapshot())
    assert (int(nines) in known, int(round_one) in known) == (False, True)
    frontier.settle([0], [nines])
    assert frontier.low == round_one
    with pytest.raises(ValueError, match="is not after"):
        Frontier(FrontierSnapshot(low=round_one)).track([nines])


@pytest.mark.parametrize("page", [["5"], ["4"], ["6", "6"], ["7", "6"], ["100", "99"]])
def test_going_backwards_is_refused_and_changes_nothing(page: list[str]) -> None:
    """An equal or smaller number raises ValueError before anything of the page is tracked."""
    frontier = Frontier()
    frontier.track(["4", "5"])
    version = frontier.version
    with pytest.raises(ValueError, match="is not after"):
        frontier.track(page)
    assert (frontier.outstanding, frontier.newest, frontier.version) == (2, 5, version)
    assert list(frontier.track(["8"])) == [2]


def test_restarts_never_track_at_or_below_the_low_watermark() -> None:
    """A resumed frontier refuses records that are settled for good."""
    frontier = Frontier(FrontierSnapshot(low="10", first="1"))
    with pytest.raises(ValueError, match="is not after"):
        frontier.track(["10"])
    assert frontier.snapshot() == FrontierSnapshot(low="10", first="1")


def test_first_is_the_first_record_ever_fetched() -> None:
    """Set once, kept over restarts, and worth a write of its own."""
    frontier = Frontier()
    assert frontier.snapshot() == FrontierSnapshot()
    version = frontier.version
    frontier.track([])
    assert (frontier.version, frontier.snapshot().first) == (version, None)
    frontier.track(["5", "6"])
    assert frontier.version > version
    snapshot = frontier.snapshot()
    assert snapshot == FrontierSnapshot(low=None, first="5")
    again = Frontier(snapshot)
    again.track(["5", "6"])
    again.settle([0], ["5"])
    assert again.snapshot() == FrontierSnapshot(low="5", first="5")


def test_runs_ahead_of_what_was_re_read_are_kept() -> None:
    """A second crash before everything is re-read must not forget what the first owner settled."""
    stored = FrontierSnapshot(low="10", first="1", runs=(("13", "15"), ("18", "20")))
    assert Frontier(stored).snapshot() == stored
    frontier = Frontier(stored)
    frontier.track(["11", "12", "13", "14"])
    frontier.settle([2, 3], ["13", "14"])
    known = SettledFilter(frontier.snapshot())
    assert [number for number in range(1, 25) if number in known] == [*range(1, 11), 13, 14, 15, 18, 19, 20]
    frontier.settle([0, 1], ["11", "12"])
    known = SettledFilter(frontier.snapshot())
    assert [number for number in range(1, 25) if number in known] == [*range(1, 16), 18, 19, 20]


def test_version_grows_with_progress() -> None:
    """What a snapshot shows never changes without the version growing."""
    frontier = Frontier()
    frontier.track(["1", "2"])
    versions = [frontier.version]
    for index in (1, 0):
        frontier.settle([index], [str(index + 1)])
        versions.append(frontier.version)
    frontier.settle([], [])
    assert frontier.version == versions[-1], "nothing has changed"
    assert versions == sorted(set(versions))


def test_an_empty_filter_knows_nothing() -> None:
    """A shard without a stored frontier has no settled record."""
    known = SettledFilter(FrontierSnapshot())
    assert known.top == -1
    assert 0 not in known


def test_a_million_records_settled_behind_an_old_one_take_no_memory() -> None:
    """Stretches are kept, not records: whatever is settled meanwhile is one. What pickle writes is all that is held."""
    frontier, numbers = Frontier(), [str(10**21 + index * 7) for index in range(1_000_000)]
    for page in range(0, len(numbers), 1000):
        positions = frontier.track(numbers[page : page + 1000])
        read = positions if page else positions[1:]
        frontier.settle(read, numbers[read.start : read.stop])
    assert frontier.outstanding == 1
    assert frontier.snapshot() == FrontierSnapshot(first=numbers[0], runs=((numbers[1], numbers[-1]),))
    assert len(pickle.dumps(frontier)) < 1000


def test_the_size_of_the_books_is_about_what_they_take() -> None:
    """When every second record is settled there is a stretch for each of them: nothing is larger."""
    tracemalloc.start()
    try:
        frontier = Frontier()
        for page in range(0, 20_000, 1000):
            numbers = [str(10**39 + page + index) for index in range(1000)]
            positions = frontier.track(numbers)
            frontier.settle(positions[1::2], numbers[1::2])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frontier.size == 10_000 * BYTES_PER_STRETCH
    assert held / 2 < frontier.size < 2 * held


@given(numbers=STREAMS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_snapshot_carries_the_deferred_keys_whatever_its_room(numbers: list[str], data: st.DataObject) -> None:
    """They are exceptions from low and runs: without one of them the rest would be a lie."""
    frontier = Frontier()
    frontier.track(numbers)
    settle(frontier, numbers, data.draw(st.sets(st.integers(0, len(numbers) - 1))))
    deferred = (DeferredKey("a" * 16, numbers[0]), DeferredKey("b" * 16, numbers[-1], passed=True))
    room = data.draw(st.sampled_from([0, 50, 200, MAX_RUNS_BYTES]))
    snapshot = frontier.snapshot(room, deferred)
    assert snapshot.deferred == deferred
    assert sum(len(first) + len(last) + 6 for first, last in snapshot.runs) <= room
    complete = frontier.snapshot(1 << 30)
    assert snapshot.runs == complete.runs[: len(snapshot.runs)], "the oldest runs are kept"


@pytest.mark.parametrize(
    ("deferred", "expected"),
    [
        ((), FrontierSnapshot("50", "1", (("60", "70"),))),
        ((DeferredKey("a", "20"),), FrontierSnapshot(first="20")),
        ((DeferredKey("a", "20", passed=True),), FrontierSnapshot(first="20")),
        ((DeferredKey("a", "9"), DeferredKey("b", "10")), FrontierSnapshot(first="9")),
        ((DeferredKey("a", "55"),), FrontierSnapshot("50", "1")),  # 51 may not be settled, nor what the run hides
        ((DeferredKey("a", "9"), DeferredKey("b", BEGINNING)), FrontierSnapshot(first="1")),
    ],
)
def test_rewound(deferred: tuple[DeferredKey, ...], expected: FrontierSnapshot) -> None:
    """Where no key may be behind the others everything is read again from the oldest unsettled record of any."""
    assert rewound(FrontierSnapshot("50", "1", (("60", "70"),), deferred)) == expected


def test_rewound_when_nothing_else_is_settled() -> None:
    """A trim in between is noticed: the first record that was ever read is asked for."""
    assert rewound(FrontierSnapshot(first="5", deferred=(DeferredKey("a", "7"),))) == FrontierSnapshot(first="5")


@given(numbers=STREAMS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_rewound_leaves_out_nothing_that_is_not_settled(numbers: list[str], data: st.DataObject) -> None:
    """Whatever is settled, in any order, and whichever key is deferred from whichever record on."""
    frontier = Frontier()
    frontier.track(numbers)
    done = data.draw(st.sets(st.integers(0, len(numbers) - 1)))
    settle(frontier, numbers, done)
    start = data.draw(st.integers(0, len(numbers) - 1))
    key = DeferredKey("a" * 16, numbers[start], passed=data.draw(st.booleans()))
    again = rewound(frontier.snapshot(1 << 30, (key,)))
    assert not again.deferred
    oldest = min(start, next((index for index in range(len(numbers)) if index not in done), start))
    read_from = -1 if again.low is None else numbers.index(again.low)
    if again.low is None and again.first is not None:
        read_from = numbers.index(again.first) - 1
    assert read_from < oldest, "it is read again"
    assert all(int(numbers[index]) not in SettledFilter(again) for index in range(oldest, len(numbers)))


def test_untouched() -> None:
    """A shard of which something is stored, if only a key that waits for a parent, does not begin."""
    assert FrontierSnapshot().untouched
    for touched in (
        FrontierSnapshot(low="1"),
        FrontierSnapshot(first="1"),
        FrontierSnapshot(deferred=(DeferredKey("a", BEGINNING),)),
    ):
        assert not touched.untouched
