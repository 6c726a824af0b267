"""When the next checkpoint is due: pure arithmetic, and a year of a shard played through it."""

from __future__ import annotations

import random

import pytest

from consumer.domain.checkpoint_pace import QUIET, CheckpointPace

INTERVAL = 1.0


def test_the_first_settlement_after_a_quiet_time_is_written_at_once() -> None:
    pace = CheckpointPace()
    assert pace.pause(100.0, INTERVAL, 1, under_way=False) <= 0.0
    pace.wrote(100.1, 1)
    assert pace.pause(200.0, INTERVAL, 2, under_way=False) <= 0.0


def test_the_next_one_waits_for_the_end_of_the_interval_since_the_end_of_the_write() -> None:
    pace = CheckpointPace()
    pace.pause(100.0, INTERVAL, 1, under_way=False)
    pace.wrote(100.1, 1)
    assert pace.pause(100.4, INTERVAL, 2, under_way=False) == pytest.approx(0.7)
    assert pace.pause(100.9, INTERVAL, 5, under_way=True) == pytest.approx(0.2)
    assert pace.pause(101.1, INTERVAL, 9, under_way=False) <= 0.0


def test_a_write_that_failed_counts_and_what_it_was_to_store_is_still_due() -> None:
    pace = CheckpointPace()
    pace.pause(100.0, INTERVAL, 1, under_way=False)
    pace.failed(107.0)
    assert pace.pause(107.0, INTERVAL, 1, under_way=False) == pytest.approx(INTERVAL)
    assert pace.pause(108.0, INTERVAL, 1, under_way=True) <= 0.0


def test_records_that_settle_one_after_another_share_a_write() -> None:
    pace = CheckpointPace()
    now = 100.0
    for settlements in range(1, 11):
        assert pace.pause(now, INTERVAL, settlements, under_way=True) == pytest.approx(QUIET)
        now += QUIET / 2
    assert pace.pause(now, INTERVAL, 11, under_way=False) <= 0.0, "all of them are settled"


def test_a_call_that_takes_long_holds_back_no_write() -> None:
    pace = CheckpointPace()
    assert pace.pause(100.0, INTERVAL, 1, under_way=True) == pytest.approx(QUIET)
    assert pace.pause(100.0 + QUIET, INTERVAL, 1, under_way=True) <= 0.0


def test_what_never_comes_to_rest_is_written_at_the_end_of_an_interval() -> None:
    pace = CheckpointPace()
    now, settlements = 100.0, 1
    while (pause := pace.pause(now, INTERVAL, settlements, under_way=True)) > 0.0:
        now, settlements = now + pause, settlements + 1
    assert now == pytest.approx(100.0 + INTERVAL)


def test_where_a_shard_was_read_first_waits_for_the_interval() -> None:
    """Written at once it would make the first settlement wait; never written, a trim before it would go unnoticed."""
    pace = CheckpointPace()
    assert pace.pause(100.0, INTERVAL, 0, under_way=True) == pytest.approx(INTERVAL)
    assert pace.pause(100.3, INTERVAL, 1, under_way=False) <= 0.0
    pace = CheckpointPace()
    pace.pause(100.0, INTERVAL, 0, under_way=True)
    assert pace.pause(101.0, INTERVAL, 0, under_way=True) <= 0.0


def test_an_interval_that_is_changed_counts_for_the_pause_that_is_asked_next() -> None:
    pace = CheckpointPace()
    pace.wrote(100.0, 1)
    assert pace.pause(102.0, 60.0, 2, under_way=False) == pytest.approx(58.0)
    assert pace.pause(102.0, 1.0, 2, under_way=False) <= 0.0


@pytest.mark.parametrize("rate", [0.3, 3.0, 300.0])
def test_whatever_comes_writes_are_an_interval_apart_and_nothing_waits_longer(rate: float) -> None:
    """Settlements by chance, some in bursts and some beside a call that goes on; writes take their time, and fail."""
    chance = random.Random(f"{rate}")
    pace, settlements, written = CheckpointPace(), 0, 0
    now = ended = -1e9
    now, settling, oldest, last = 0.0, chance.expovariate(rate), 0.0, -1e9
    for _ in range(20_000):
        if settlements == written:  # idle: the next settlement wakes it
            now = max(now, settling)
            oldest = settling
        while settling <= now:
            settlements += chance.choice((1, 1, 10))
            settling += chance.expovariate(rate)
        under_way = chance.random() < 0.3
        pause = pace.pause(now, INTERVAL, settlements, under_way=under_way)
        assert pause <= INTERVAL
        if pause > 0.0:
            now += pause
            continue
        assert now >= ended + INTERVAL - 1e-6
        assert now <= max(oldest, last, ended) + INTERVAL + 1e-6
        taken, seen = chance.choice((0.001, 0.01, 2.0)), settlements
        now = ended = now + taken
        if chance.random() < 0.1:
            pace.failed(now)
            last = now
        else:
            pace.wrote(now, seen)
            written, oldest = seen, now
