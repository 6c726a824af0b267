"""When a shard is read again: bounds that nothing breaks, and what is learned from arrivals."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.domain.kinesis_format import READING
from consumer.domain.polling import EARLY, HORIZON, STRETCHES, Arrivals, Pauses
from consumer.domain.source_format import ReadingLimits

STREAMS = ReadingLimits()
DEFAULT = Pauses.of(STREAMS, 2.0, 5.0)
NIGHT = 12 * 3600.0

looks = st.lists(st.tuples(st.floats(-1e3, 1e6), st.integers(0, 10_000)), max_size=60)
limits = st.sampled_from([STREAMS, READING])
knobs = st.tuples(st.floats(0.2, 300.0), st.floats(0.2, 300.0))


def taught(history: list[tuple[float, int]]) -> Arrivals:
    found = Arrivals()
    for waited, records in history:
        found.looked(waited, records)
    return found


def play(arrivals: Arrivals, times: Callable[[float], int], seconds: float, pauses: Pauses = DEFAULT) -> list[float]:
    """Read for so long; ``times`` says how many records had come by then. Returns the times of the reads."""
    now, waited, seen, reads = 0.0, 0.0, 0, []
    while now < seconds:
        reads.append(now)
        arrivals.looked(waited, times(now) - seen)
        seen = times(now)
        waited = arrivals.pause(pauses)
        now += waited
    return reads


class TestBounds:
    @pytest.mark.parametrize(
        ("source", "target", "longest", "pauses"),
        [
            (STREAMS, 2.0, 5.0, (2.0, 5.0, 0.2)),
            (STREAMS, 0.2, 5.0, (0.2, 5.0, 0.2)),
            (STREAMS, 2.0, 0.5, (0.5, 0.5, 0.2)),
            (STREAMS, 0.001, 0.001, (0.2, 0.2, 0.2)),
            (READING, 2.0, 5.0, (2.0, 5.0, 1.0)),
            (READING, 0.5, 5.0, (0.5, 5.0, 0.5)),
            (READING, 0.2, 5.0, (0.3, 5.0, 0.3)),
            (READING, 0.2, 0.2, (0.3, 0.3, 0.3)),
        ],
    )
    def test_of_a_source(self, source: ReadingLimits, target: float, longest: float, pauses: tuple[float, ...]) -> None:
        """A target below the longest pause counts; Kinesis is read more than once a second only when that was asked."""
        assert Pauses.of(source, target, longest) == pauses

    @given(looks, limits, knobs)
    @example([(5e-324, 1)], STREAMS, (1.0, 1.0))
    def test_of_pauses(
        self, history: list[tuple[float, int]], source: ReadingLimits, knob: tuple[float, float]
    ) -> None:
        """Whatever came and whatever clocks say: at most five reads a second, and never longer than the longest."""
        pauses = Pauses.of(source, *knob)
        arrivals = taught(history)
        for silence in (0.0, 1.0, 30.0, HORIZON, 10 * HORIZON):
            arrivals.looked(silence, 0)
            assert max(0.2, source.interval) <= arrivals.pause(pauses) <= max(knob[1], source.interval)

    @given(looks)
    def test_after_a_night_any_shard_is_silent(self, history: list[tuple[float, int]]) -> None:
        arrivals = taught(history)
        arrivals.looked(HORIZON, 0)
        arrivals.looked(NIGHT, 0)
        assert arrivals.pause(DEFAULT) == DEFAULT.longest

    @given(looks)
    def test_the_size_is_fixed(self, history: list[tuple[float, int]]) -> None:
        arrivals = taught(history)
        kept = (arrivals._watched, arrivals._pages, arrivals._records)
        assert {len(each) for each in kept} == {STRETCHES}
        assert all(math.isfinite(value) and value >= 0.0 for each in kept for value in each)

    @given(st.lists(st.floats(1e-3, 1e5), min_size=2), limits, knobs)
    def test_more_records_never_mean_longer_pauses(
        self, rates: list[float], source: ReadingLimits, knob: tuple[float, float]
    ) -> None:
        pauses = Pauses.of(source, *knob)
        found = [pauses.expecting(rate) for rate in sorted(rates)]
        assert found == sorted(found, reverse=True)
        assert pauses.expecting(0.0) >= found[0]

    @pytest.mark.parametrize(
        ("rate", "pause"),
        [(0.0, 1.9), (0.1, 1.9), (0.2, 1.9), (0.8, 0.95), (3.2, 0.475), (1000.0, 0.2)],
    )
    def test_the_pause_goes_with_the_root_of_the_time_between_records(self, rate: float, pause: float) -> None:
        assert DEFAULT.expecting(rate) == pytest.approx(pause)


class TestSilence:
    def test_a_new_owner_backs_off(self) -> None:
        """Nothing is known: pauses grow from the target to the longest, and stay there."""
        arrivals, waited, pauses = Arrivals(), 0.0, []
        for _ in range(12):
            arrivals.looked(waited, 0)
            waited = arrivals.pause(DEFAULT)
            pauses.append(waited)
        assert pauses[0] == EARLY * 2.0
        assert pauses == sorted(pauses)
        assert pauses[-6:] == [5.0] * 6

    @given(st.floats(0.2, 60.0), st.floats(1.0, 300.0))
    def test_an_hour_of_it_costs_no_more_than_the_longest_pause_says(self, target: float, longest: float) -> None:
        pauses = Pauses.of(STREAMS, target, longest)
        reads = play(Arrivals(), lambda _: 0, 3600.0, pauses)
        growing = math.log(max(1.0, longest / pauses.target), 1.5) + 4
        assert len(reads) <= 3600.0 / pauses.longest + growing

    def test_what_filters_leave_out_keeps_no_shard_awake(self) -> None:
        """A page of such records gives none to be handled."""
        arrivals = Arrivals()
        for _ in range(100):
            arrivals.looked(arrivals.pause(DEFAULT), 0)
        assert arrivals.pause(DEFAULT) == DEFAULT.longest


class TestLearning:
    def test_a_steady_flow_is_read_at_its_pace(self) -> None:
        """A record every four seconds: at the target, well before the next record and long after it is late."""
        arrivals = Arrivals()
        reads = play(arrivals, lambda now: int(now / 4.0), 600.0)
        late = [after - before for before, after in pairwise(reads[100:])]
        assert max(late) <= 2.5
        assert sum(late) / len(late) >= 1.5

    def test_much_is_read_five_times_a_second(self) -> None:
        reads = play(Arrivals(), lambda now: int(now * 100.0), 60.0)
        late = [after - before for before, after in pairwise(reads[10:])]
        assert late == pytest.approx([0.2] * len(late))

    def test_a_clock_is_expected_when_it_strikes(self) -> None:
        """One record a minute: few reads in between, and at the pace of the target when it is due."""
        reads = play(Arrivals(), lambda now: int(now / 60.0), 3600.0)
        last = [now for now in reads if now > 1800.0]
        quiet = [now for now in last if 15.0 < now % 60.0 < 45.0]
        struck = [next(now for now in last if now >= strike) - strike for strike in range(1860, 3600, 60)]
        assert len(quiet) < 30 * 30.0 / 3.0
        assert sum(wait <= 2.0 for wait in struck) >= 0.9 * len(struck)

    def test_a_burst_resets(self) -> None:
        arrivals = taught([(4.0, 1)] * 50)
        arrivals.looked(NIGHT, 0)
        assert arrivals.pause(DEFAULT) == 5.0
        arrivals.looked(5.0, 500)
        assert arrivals.pause(DEFAULT) <= 2.0

    def test_the_morning_is_as_the_evening_was(self) -> None:
        """What was learned is not lost over night."""
        evening, morning = taught([(2.0, 0), (2.0, 1)] * 50), taught([(2.0, 0), (2.0, 1)] * 50)
        evening.looked(4.0, 1)
        for _ in range(int(NIGHT / 5.0)):
            morning.looked(5.0, 0)
        morning.looked(5.0, 1)
        assert morning.pause(DEFAULT) == pytest.approx(evening.pause(DEFAULT), rel=0.1)

    def test_a_process_that_was_held_up_has_seen_nothing(self) -> None:
        arrivals, other = taught([(4.0, 1)] * 50), taught([(4.0, 1)] * 50)
        for waited in (HORIZON + 1.0, math.inf):
            arrivals.looked(waited, 3)
        assert sum(arrivals._pages) < sum(other._pages)
        assert sum(arrivals._watched) < sum(other._watched)
        assert arrivals.pause(DEFAULT) == pytest.approx(other.pause(DEFAULT), rel=0.1)

    def test_a_clock_that_goes_back_changes_nothing(self) -> None:
        arrivals = taught([(5.0, 0)] * 4)
        assert arrivals.pause(DEFAULT) == 5.0
        arrivals.looked(-1e6, 0)
        assert arrivals.pause(DEFAULT) == 5.0

    def test_being_behind_teaches_nothing_of_when_records_come(self) -> None:
        """The time in which a backlog is read says how fast it is read."""
        arrivals, other = taught([(4.0, 1)] * 50), taught([(4.0, 1)] * 50)
        arrivals.looked(3.0, 0)
        for _ in range(1000):
            arrivals.behind()
        assert arrivals.pause(DEFAULT) == pytest.approx(other.pause(DEFAULT), rel=0.1)

    def test_a_record_an_hour_is_not_waited_for(self) -> None:
        """More than 300 reads for one record: the longest pause is good enough."""
        reads = play(Arrivals(), lambda now: int(now / 3600.0), 10 * 3600.0)
        assert len(reads) < 10 * 750

    def test_a_record_in_twenty_minutes_is_not_waited_for(self) -> None:
        """Some of them come within the time from which is learned."""
        chance = random.Random(1)
        gaps = [chance.expovariate(1 / 1200.0) for _ in range(100)]
        times = list(accumulate(gaps))
        reads = play(Arrivals(), lambda now: bisect_right(times, now), 20 * 3600.0)
        assert len(reads) < 20 * 850

    def test_another_target_counts_at_once(self) -> None:
        arrivals = taught([(4.0, 1)] * 50)
        assert arrivals.pause(Pauses.of(STREAMS, 0.5, 5.0)) <= 0.5
        assert arrivals.pause(Pauses.of(STREAMS, 4.0, 5.0)) > 1.5
