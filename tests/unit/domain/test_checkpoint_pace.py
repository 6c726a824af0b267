"""When the next checkpoint is due: pure arithmetic, and a year of a shard played through it."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.domain.checkpoint_pace import QUIET, CheckpointPace

INTERVAL = 1.0


def next_look(
    pace: CheckpointPace, now: float, settlements: int, *, under_way: bool, interval: float = INTERVAL
) -> float:
    """Seconds until a shard looks again if nothing comes; not above 0: it writes."""
    rest = pace.rest(now, interval)
    return rest if rest > 0 else pace.pause(now, interval, settlements, under_way=under_way)


def test_the_first_settlement_after_a_quiet_time_is_written_at_once() -> None:
    pace = CheckpointPace()
    assert next_look(pace, 100.0, 1, under_way=False) <= 0.0
    pace.wrote(100.1, 1)
    assert next_look(pace, 200.0, 2, under_way=False) <= 0.0


def test_the_next_one_waits_for_the_end_of_the_interval_since_the_end_of_the_write() -> None:
    pace = CheckpointPace()
    next_look(pace, 100.0, 1, under_way=False)
    pace.wrote(100.1, 1)
    assert pace.rest(100.4, INTERVAL) == pytest.approx(0.7)
    assert next_look(pace, 100.9, 5, under_way=True) == pytest.approx(0.2)
    assert next_look(pace, 101.1, 9, under_way=False) <= 0.0


def test_a_write_that_failed_counts_and_what_it_was_to_store_is_still_due() -> None:
    pace = CheckpointPace()
    next_look(pace, 100.0, 1, under_way=False)
    pace.failed(107.0)
    assert pace.rest(107.0, INTERVAL) == pytest.approx(INTERVAL)
    assert next_look(pace, 108.0, 1, under_way=True) <= 0.0


def test_records_that_settle_one_after_another_share_a_write() -> None:
    pace = CheckpointPace()
    now = 100.0
    for settlements in range(1, 11):
        assert next_look(pace, now, settlements, under_way=True) == pytest.approx(QUIET)
        now += QUIET / 2
    assert next_look(pace, now, 11, under_way=False) <= 0.0, "all of them are settled"


def test_a_call_that_takes_long_holds_back_no_write() -> None:
    pace = CheckpointPace()
    assert next_look(pace, 100.0, 1, under_way=True) == pytest.approx(QUIET)
    assert next_look(pace, 100.0 + QUIET, 1, under_way=True) <= 0.0


def test_what_never_comes_to_rest_is_written_at_the_end_of_an_interval() -> None:
    pace = CheckpointPace()
    now, settlements = 100.0, 1
    while (pause := next_look(pace, now, settlements, under_way=True)) > 0.0:
        now, settlements = now + pause, settlements + 1
    assert now == pytest.approx(100.0 + INTERVAL)


def test_under_load_an_interval_is_not_two() -> None:
    """What never comes to rest has waited while nothing might be written."""
    pace = CheckpointPace()
    pace.wrote(100.0, 1)
    assert pace.rest(100.01, INTERVAL) > 0
    assert next_look(pace, 101.0, 2, under_way=True) == pytest.approx(0.01)


def test_where_a_shard_was_read_first_waits_for_the_interval() -> None:
    """Written at once it would make the first settlement wait; never written, a trim before it would go unnoticed."""
    pace = CheckpointPace()
    assert next_look(pace, 100.0, 0, under_way=True) == pytest.approx(INTERVAL)
    assert next_look(pace, 100.3, 1, under_way=False) <= 0.0
    pace = CheckpointPace()
    next_look(pace, 100.0, 0, under_way=True)
    assert next_look(pace, 101.0, 0, under_way=True) <= 0.0


def test_an_interval_that_is_changed_counts_for_the_pause_that_is_asked_next() -> None:
    pace = CheckpointPace()
    pace.wrote(100.0, 1)
    assert next_look(pace, 102.0, 2, under_way=False, interval=60.0) == pytest.approx(58.0)
    assert next_look(pace, 102.0, 2, under_way=False, interval=1.0) <= 0.0


@pytest.mark.parametrize("rate", [0.3, 3.0, 300.0])
def test_whatever_comes_writes_are_an_interval_apart_and_nothing_waits_longer(rate: float) -> None:
    """Settlements by chance, with and without a call beside them that goes on; writes take their time, and fail."""
    chance = random.Random(f"{rate}")
    pace, waiting = CheckpointPace(), list[float]()  # when what is not written was settled
    now, settlements, following, ended = 0.0, 0, chance.expovariate(rate), -1e9
    for _ in range(4_000):
        now = now if waiting else max(now, following)  # an idle shard does not look at anything
        while following <= now:
            waiting.append(following)
            settlements += 1
            following += chance.expovariate(rate)
        if (rest := pace.rest(now, INTERVAL)) > 0.0:
            now += rest
            continue
        if (pause := pace.pause(now, INTERVAL, settlements, under_way=chance.random() < 0.3)) > 0.0:
            now = min(now + pause, following)
            continue
        assert now >= ended + INTERVAL - 1e-6
        assert now <= max(waiting[0], ended) + INTERVAL + 1e-6
        began, now = now, now + chance.choice((0.001, 0.01, 2.0))
        ended = now
        if chance.random() < 0.1:
            pace.failed(now)
        else:
            pace.wrote(now, settlements)
            waiting = [settled for settled in waiting if settled > began]


@given(st.floats(0.0, 1e8), st.floats(0.0, 600.0), st.floats(0.0, 600.0))
@example(1603.5902538490768, 0.9999999999997726, 1.0)
def test_a_wait_that_was_waited_is_over(ended: float, later: float, interval: float) -> None:
    """Whatever rounding leaves of it: no clock moves by less than it can tell, and a shard would ask for ever."""
    pace = CheckpointPace()
    pace.wrote(ended, 0)
    now = ended + later
    now += pace.rest(now, interval)
    assert pace.rest(now, interval) == 0.0
    now += pace.pause(now, interval, 0, under_way=True)
    assert pace.pause(now, interval, 0, under_way=True) == 0.0
