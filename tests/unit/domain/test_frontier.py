"""The frontier against a naive set of settled numbers, over restarts and crashes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.domain.frontier import MAX_RUNS_BYTES, Frontier, FrontierSnapshot, SettledFilter

# Gaps between numbers: neighbours, ordinary distances, and jumps over the 21st to the 40th digit.
GAPS = st.one_of(st.just(1), st.integers(1, 10**4), st.integers(10**20, 10**38))
BASES = st.sampled_from([1, 10**20 - 2, 10**21 - 3, 99 * 10**19, 10**38])


def stream(base: int, gaps: list[int]) -> list[str]:
    numbers, number = [], base
    for gap in gaps:
        number += gap
        numbers.append(str(number))
    return numbers


STREAMS = st.builds(stream, BASES, st.lists(GAPS, min_size=1, max_size=40))


@given(numbers=STREAMS, data=st.data())
@settings(max_examples=300, deadline=None)
def test_snapshot_and_filter_agree_with_the_set_of_settled_records(numbers: list[str], data: st.DataObject) -> None:
    """Records settled in any order, tracked in any pages: exactly they, and nothing tracked else, are settled."""
    frontier, settled, tracked = Frontier(), set[int](), 0
    while tracked < len(numbers):
        page = data.draw(st.integers(1, len(numbers) - tracked))
        indices = frontier.track(numbers[tracked : tracked + page])
        assert list(indices) == list(range(tracked, tracked + page))
        tracked += page
        open_ones = [index for index in range(tracked) if index not in settled]
        now = data.draw(st.lists(st.sampled_from(open_ones), unique=True)) if open_ones else []
        frontier.settle(now)
        settled |= set(now)
        snapshot = frontier.snapshot()
        known = SettledFilter(snapshot)
        assert [int(number) in known for number in numbers] == [index in settled for index in range(len(numbers))]
        assert frontier.outstanding == tracked - len(settled)
        done = next((index for index in range(len(numbers)) if index not in settled), len(numbers))
        assert snapshot.low == frontier.low == (numbers[done - 1] if done else None)
        assert frontier.span == tracked - done
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
        start = 0 if stored.low is None else numbers.index(stored.low) + 1
        unsettled: list[int] = []
        names: dict[int, str] = {}
        while start < len(numbers) and data.draw(st.booleans()):
            page = numbers[start : start + data.draw(st.integers(1, 8))]
            start += len(page)
            for index, number in zip(frontier.track(page), page, strict=True):
                names[index] = number
                if int(number) in known:
                    frontier.settle([index])
                else:
                    unsettled.append(index)
            done = data.draw(st.lists(st.sampled_from(unsettled), unique=True)) if unsettled else []
            frontier.settle(done)
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
    frontier.settle(range(1, 1000, 2))
    runs = frontier.snapshot().runs
    assert sum(len(first) + len(last) for first, last in runs) <= MAX_RUNS_BYTES
    assert len(runs) >= MAX_RUNS_BYTES // (2 * digits + 7)
    assert runs == tuple((number, number) for number in numbers[1 : 2 * len(runs) : 2])
    frontier.settle(range(0, 1000, 2))
    assert frontier.snapshot() == FrontierSnapshot(low=numbers[-1], first=numbers[0])


def test_forgotten_runs_are_handled_again_and_known_ones_are_not() -> None:
    """After a restart from a bounded snapshot the filter is exact up to its top and empty above."""
    numbers = [str(10**30 + index) for index in range(1000)]
    frontier = Frontier()
    frontier.track(numbers)
    frontier.settle(range(1, 1000, 2))
    known = SettledFilter(frontier.snapshot())
    settled = [index for index, number in enumerate(numbers) if int(number) in known]
    assert settled == list(range(1, 2 * len(settled), 2))
    assert known.top == int(numbers[settled[-1]])


def test_numbers_are_compared_as_integers() -> None:
    """21 nines lie below a one with 21 zeros; as text they would not."""
    nines, round_one = "9" * 21, "1" + "0" * 21
    frontier = Frontier()
    frontier.track([nines, round_one])
    frontier.settle([1])
    known = SettledFilter(frontier.snapshot())
    assert (int(nines) in known, int(round_one) in known) == (False, True)
    frontier.settle([0])
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
    assert (frontier.span, frontier.version) == (2, version)
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
    again.settle([0])
    assert again.snapshot() == FrontierSnapshot(low="5", first="5")


def test_runs_ahead_of_what_was_re_read_are_kept() -> None:
    """A second crash before everything is re-read must not forget what the first owner settled."""
    stored = FrontierSnapshot(low="10", first="1", runs=(("13", "15"), ("18", "20")))
    assert Frontier(stored).snapshot() == stored
    frontier = Frontier(stored)
    frontier.track(["11", "12", "13", "14"])
    frontier.settle([2, 3])
    known = SettledFilter(frontier.snapshot())
    assert [number for number in range(1, 25) if number in known] == [*range(1, 11), 13, 14, 15, 18, 19, 20]
    frontier.settle([0, 1])
    known = SettledFilter(frontier.snapshot())
    assert [number for number in range(1, 25) if number in known] == [*range(1, 16), 18, 19, 20]


def test_version_grows_with_progress() -> None:
    """What a snapshot shows never changes without the version growing."""
    frontier = Frontier()
    frontier.track(["1", "2"])
    versions = [frontier.version]
    for index in (1, 0):
        frontier.settle([index])
        versions.append(frontier.version)
    assert versions == sorted(set(versions))


def test_an_empty_filter_knows_nothing() -> None:
    """A shard without a stored frontier has no settled record."""
    known = SettledFilter(FrontierSnapshot())
    assert known.top == -1
    assert 0 not in known
