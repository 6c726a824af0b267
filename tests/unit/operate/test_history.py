"""A quarter of an hour of lag and rates, in a place of fixed size."""

from __future__ import annotations

from consumer.operate.history import POINTS, STEP, History, Rates

NOTHING = {"handled": 0.0, "dead_letters": 0.0, "throttles": 0.0}


def counted(handled: float) -> dict[str, float]:
    return {**NOTHING, "handled": handled}


def test_a_point_is_due_every_step_and_has_the_worst_lag_of_it() -> None:
    history = History()
    assert history.observe(100.0, 0.0), "the first one begins the count"
    history.add(100.0, counted(50), {})
    assert history.past.lag == ()
    assert not any(history.observe(100.0 + second, lag) for second, lag in ((1, 0.1), (5, 7.04), (9, 0.2)))
    assert history.observe(110.0, 0.1)
    history.add(110.0, counted(150), {})
    assert history.past.lag == (7.0,)
    assert history.past.handled == (10.0,)
    history.add(120.0, counted(150), {})
    assert history.past.lag == (7.0, 0.0), "the worst of a step is not that of the next one"
    assert history.past.handled == (10.0, 0.0)


def test_what_was_missed_stays_empty() -> None:
    """The main loop was blocked for half a minute: three points, of which the last one has the average."""
    history = History()
    history.add(0.0, counted(0), {})
    history.add(3 * STEP, counted(300), {})
    assert history.past.handled == (None, None, 10.0)


def test_only_a_quarter_of_an_hour_is_kept_however_long_a_pause_was() -> None:
    history = History()
    for step in range(5 * POINTS):
        history.add(step * STEP, counted(step), {})
    assert len(history.past.lag) == POINTS
    history.add(1e7, counted(1e6), {})
    assert len(history.past.lag) == POINTS
    assert history.past.lag[0] is None


def test_calls_per_hour_are_the_average_of_what_is_kept() -> None:
    history = History()
    history.add(0.0, NOTHING, {"GetRecords": 1000.0, "Query": 5.0})
    assert history.past.calls_per_hour == {}
    history.add(10.0, NOTHING, {"GetRecords": 1040.0, "Query": 5.0, "GetItem": 1.0})
    assert history.past.calls_per_hour == {"GetItem": 360.0, "GetRecords": 14400.0}


def test_counters_that_begin_anew_have_no_rate_below_zero() -> None:
    history, rates = History(), Rates()
    history.add(0.0, counted(100), {})
    history.add(STEP, counted(1), {})
    assert history.past.handled == (0.0,)
    assert [rates.observe(at, "s", count) for at, count in ((0.0, 0), (5.0, 50), (10.0, 100))] == [None, None, 10.0]
    assert rates.observe(11.0, "s", 3) is None, "another owner had the shard meanwhile"
    rates.observe(12.0, "t", 1)
    rates.keep({"t": 1})
    assert rates.observe(40.0, "s", 1000) is None
