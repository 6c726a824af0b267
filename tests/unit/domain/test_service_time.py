"""The services' time from the dates of their answers: near enough to show, and never too late to decide by."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.service_time import DRIFT, MOST_APART, SAMPLES, ServiceTime

NOON = 1_800_000_000.0


def heard(*samples):
    """(what the service's clock really shows, the monotonic clock) for each answer; its date is in whole seconds."""
    known = ServiceTime()
    for true, monotonic in samples:
        known = known.heard(float(int(true)), monotonic)
    return known


def test_nothing_is_known_before_the_first_answer():
    assert ServiceTime().samples == ()
    assert ServiceTime().at_least(1e9, 0.0) == -math.inf


def test_the_first_answer_of_a_second_says_the_most():
    known = heard((NOON + 0.9, 100.0), (NOON + 1.01, 100.11), (NOON + 2.5, 101.6))
    assert known.now(200.0) == pytest.approx(NOON + 100.9, abs=0.02)


def test_a_late_answer_turns_nothing_back():
    known = heard((NOON, 100.0), (NOON + 10, 110.0), (NOON + 11, 131.0))  # the process was frozen for twenty seconds
    assert known.now(131.0) == pytest.approx(NOON + 31)


@pytest.mark.parametrize("wrong", [3600.0, 86_400.0, -3600.0])
def test_one_server_with_a_wrong_clock_does_not_count(wrong):
    samples = [(NOON + second, 100.0 + second) for second in range(10)]
    samples[5] = (NOON + 5 + wrong, 105.0)
    known = heard(*samples)
    assert known.now(110.0) == pytest.approx(NOON + 10)
    assert known.at_least(110.0, 0.0) <= NOON + 10


@pytest.mark.parametrize("ahead", [240.0, 86_400.0, -61.0, 60.1])
def test_nothing_is_too_old_while_two_clocks_differ(ahead):
    assert heard((NOON, 100.0)).at_least(100.0, ahead) == -math.inf


@pytest.mark.parametrize("ahead", [0.0, MOST_APART, -59.9])
def test_what_is_old_is_old_while_they_agree(ahead):
    assert heard((NOON, 100.0)).at_least(100.0, ahead) == pytest.approx(NOON)


@given(
    rate=st.floats(1.0 - DRIFT, 1.0 / (1.0 - DRIFT)),
    base=st.floats(0.0, 1e6),
    answers=st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 5.0)), min_size=1, max_size=3 * SAMPLES),
    silence=st.floats(0.0, 3600.0),
)
def test_the_least_is_never_later_than_the_truth(rate, base, answers, silence):
    """Whatever the rate of this machine's clock, the way of the answers and the time since the last one."""
    known, true = ServiceTime(), NOON
    for pause, way in answers:
        true += pause
        known = known.heard(float(int(true)), base + (true + way - NOON) * rate)
        true += way
    true += silence
    monotonic = base + (true - NOON) * rate
    assert known.at_least(monotonic, 0.0) <= true + 1e-3
    fresh = known.heard(float(int(true)), monotonic)
    assert len(fresh.samples) <= SAMPLES
    assert fresh.at_least(monotonic, 0.0) <= true + 1e-3
