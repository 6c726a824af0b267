"""When the breaker of a shard opens, and how it closes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.breaker import (
    FIRST_PAUSE,
    GOOD_PROBES,
    KEYS,
    MOST_PAUSE,
    OUTCOMES,
    UNREACHABLE,
    UNREACHABLE_MANY,
    WINDOW,
    Breaker,
)


def key(number: int) -> bytes:
    return f"k{number}".encode()


def fail(breaker: Breaker, numbers: Iterable[int], now: float = 0.0, every: float = 0.0) -> bool:
    """Each key in a batch of its own."""
    return [breaker.fails(object(), key(number), 1, now + every * number) for number in numbers][-1]


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert fail(breaker, range(KEYS), now)
    return breaker


def probe(breaker: Breaker, *, good: bool | None, now: float, is_poison: bool = False) -> None:
    assert breaker.may_probe(now)
    breaker.begin_probe()
    breaker.probed(good=good, now=now, is_poison=is_poison)


# --- opening -----------------------------------------------------------------------------------------------


def test_it_opens_when_everything_fails_over_twenty_keys() -> None:
    breaker = Breaker()
    assert not fail(breaker, range(KEYS - 1))
    assert breaker.fails(object(), key(KEYS), 1, 0.0)
    assert (breaker.state, breaker.cause, breaker.failed, breaker.outcomes) == ("open", "keys_fail", KEYS, KEYS)


def test_one_hot_key_never_opens_it() -> None:
    breaker = Breaker()
    assert not fail(breaker, [7] * 10_000, every=0.01)
    assert breaker.state == "closed"


def test_a_shard_where_little_happens_opens_it_by_what_failed_since_the_last_success() -> None:
    """One key every five minutes: twenty letters, and not a table."""
    breaker = Breaker()
    breaker.handled(object(), 100, 0.0)
    assert not fail(breaker, range(KEYS - 1), 300.0, 300.0)
    assert breaker.fails(object(), key(KEYS), 1, 300.0 * KEYS + 300.0)


def test_a_success_now_and_then_keeps_it_closed_where_little_happens() -> None:
    """Failures of hours add up only when nothing gets through in between."""
    breaker = Breaker()
    for number in range(500):
        assert not breaker.fails(object(), key(number), 1, 300.0 * number)
        if number % (KEYS - 1) == 0:
            breaker.handled(object(), 1, 300.0 * number + 1)
    assert breaker.state == "closed"


@pytest.mark.parametrize(("good", "opens"), [(101, False), (99, True)])
def test_more_than_half_of_the_latest_outcomes(*, good: int, opens: bool) -> None:
    breaker = Breaker()
    breaker.handled(object(), good, 0.0)
    assert fail(breaker, range(100), 1.0) is opens


def test_an_outage_after_hours_of_success_is_seen_within_the_window() -> None:
    breaker = Breaker()
    for number in range(10_000):
        breaker.handled(object(), 1, number * 0.001)
    failed = next(number for number in range(1000) if breaker.fails(object(), key(number), 1, 10.0))
    assert failed <= OUTCOMES // 2


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker = Breaker()
    breaker.handled(object(), 150, 0.0)
    assert fail(breaker, range(KEYS), WINDOW + 1)


def test_a_large_batch_whose_answer_names_its_failed_records_counts_as_a_whole() -> None:
    """Its failing keys come last, and are more than the window holds."""
    breaker, batch = Breaker(), object()
    breaker.handled(batch, 9500, 0.0)
    assert not any(breaker.fails(batch, key(number), 1, 0.0) for number in range(500))


def test_a_batch_that_is_cut_ends_with_its_failing_keys_and_is_no_outage() -> None:
    """The last pieces of a batch of which a twentieth is poison: half of them fail, many in a row."""
    breaker, batches = Breaker(), [object() for _ in range(8)]
    for batch in batches:
        breaker.handled(batch, 900, 0.0)
    for number in range(400):
        assert not breaker.fails(batches[number % 8], key(number), 1, 1.0 + number * 0.05)


def test_a_piece_that_is_not_cut_counts_as_one_key_that_fails() -> None:
    """With bisect_on_error off one poison record fails a batch of a hundred keys."""
    breaker = Breaker()
    assert not breaker.fails(object(), key(1), 100, 0.0)
    assert fail(breaker, range(2, KEYS + 1))


def test_a_handler_that_cannot_be_reached() -> None:
    many = {key(number) for number in range(KEYS)}
    breaker = Breaker()
    assert not breaker.not_invoked(many, 0.0)
    assert not breaker.not_invoked(many, UNREACHABLE_MANY - 0.1)
    assert breaker.not_invoked(many, UNREACHABLE_MANY)
    assert (breaker.state, breaker.cause) == ("open", "not_invoked")


def test_a_handler_that_cannot_be_reached_with_one_key_for_long() -> None:
    breaker = Breaker()
    assert not breaker.not_invoked({key(1)}, 0.0)
    assert not breaker.not_invoked({key(1)}, UNREACHABLE - 0.1)
    assert breaker.not_invoked({key(1)}, UNREACHABLE)


def test_a_throttle_now_and_then_is_no_outage() -> None:
    breaker = Breaker()
    many = {key(number) for number in range(100)}
    for number in range(1000):
        assert not breaker.not_invoked(many, number * 4.0)
        breaker.invoked()


@st.composite
def twentieths(draw: st.DrawFn) -> list[tuple[int, list[int]]]:
    """Batches of which at most a fifth of the keys fails: how many are handled, and which fail."""
    sizes = draw(st.lists(st.integers(5, 300), min_size=1, max_size=60))
    batches, next_key = [], 0
    for size in sizes:
        failing = draw(st.integers(0, size // 5))
        batches.append((size - failing, list(range(next_key, next_key + failing))))
        next_key += failing
    return batches


@given(twentieths(), st.floats(0.0, 30.0))
def test_a_shard_with_some_poison_never_opens_it(batches: list[tuple[int, list[int]]], pause: float) -> None:
    breaker = Breaker()
    for number, (handled, failing) in enumerate(batches):
        batch, now = object(), number * pause
        breaker.handled(batch, handled, now)
        assert not any(breaker.fails(batch, key(one), 1, now) for one in failing)


events = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40), st.sampled_from([0.0, 0.1, 5.0, 70.0])), min_size=1, max_size=200
)


@given(events)
def test_it_is_what_an_account_of_everything_says(events: list[tuple[bool, int, float]]) -> None:
    """Each outcome in a batch of its own, judged again from all of them."""
    breaker, now, past = Breaker(), 0.0, list[tuple[float, int | None]]()
    for is_failure, number, pause in events:
        now += pause
        past.append((now, number if is_failure else None))
        if not is_failure:
            breaker.handled(object(), 1, now)
            continue
        latest = [one for at, one in past[-OUTCOMES:] if at >= now - WINDOW]
        failed = [one for one in latest if one is not None]
        since = past[max((place for place, (_, one) in enumerate(past) if one is None), default=-1) + 1 :]
        expected = (2 * len(failed) > len(latest) and len(set(failed)) >= KEYS) or (
            len(failed) == len(latest) and len({one for _, one in since}) >= KEYS
        )
        assert breaker.fails(object(), key(number), 1, now) is expected
        if expected:
            return


# --- probes ------------------------------------------------------------------------------------------------


def test_probes_come_later_and_later_while_they_fail() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(7):
        pauses.append(breaker.until_probe(now))
        assert not breaker.may_probe(now + breaker.until_probe(now) - 0.01)
        now += breaker.until_probe(now)
        probe(breaker, good=False, now=now)
        assert breaker.state == "open"
    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    assert (pauses[0], pauses[-1]) == (FIRST_PAUSE, MOST_PAUSE)


def test_three_good_probes_in_a_row_close_it_at_once() -> None:
    breaker = opened()
    for number in range(GOOD_PROBES):
        assert breaker.state == ("probing" if number else "open")
        probe(breaker, good=True, now=FIRST_PAUSE)
    assert breaker.state == "closed"


def test_a_bad_probe_after_good_ones_begins_anew_and_with_the_first_pause() -> None:
    """Some records get through, so this one may be poison: it must not cost ten minutes."""
    breaker = opened()
    probe(breaker, good=False, now=30.0)
    probe(breaker, good=True, now=90.0)
    probe(breaker, good=True, now=90.0)
    probe(breaker, good=False, now=90.0)
    assert (breaker.state, breaker.until_probe(90.0)) == ("open", FIRST_PAUSE)
    probe(breaker, good=True, now=120.0)
    assert breaker.state == "probing"


def test_known_poison_says_what_a_good_probe_says_but_the_next_one_waits() -> None:
    """What is left of a shard may be one poison key: its records must not keep the breaker open for a day."""
    breaker, now = opened(), FIRST_PAUSE
    probe(breaker, good=False, now=now)
    now += breaker.pause
    for _ in range(GOOD_PROBES - 1):
        probe(breaker, good=False, now=now, is_poison=True)
        assert (breaker.state, breaker.until_probe(now)) == ("open", FIRST_PAUSE)
        now += FIRST_PAUSE
    probe(breaker, good=False, now=now, is_poison=True)
    assert breaker.state == "closed"


def test_poison_and_good_probes_close_it_together() -> None:
    breaker = opened()
    probe(breaker, good=True, now=FIRST_PAUSE)
    probe(breaker, good=False, now=FIRST_PAUSE, is_poison=True)
    probe(breaker, good=True, now=2 * FIRST_PAUSE)
    assert breaker.state == "closed"


def test_one_probe_at_a_time_and_one_that_called_nothing_costs_nothing() -> None:
    breaker = opened()
    assert breaker.may_probe(30.0)
    breaker.begin_probe()
    assert not breaker.may_probe(30.0)
    breaker.probed(good=None, now=31.0)
    assert breaker.may_probe(31.0)


def test_what_comes_of_calls_that_were_under_way_does_not_count_while_it_is_open() -> None:
    breaker = opened()
    breaker.handled(object(), 1000, 1.0)
    assert not fail(breaker, range(100), 1.0)
    assert not breaker.not_invoked({key(1)}, 100.0)
    assert (breaker.state, breaker.until_probe(1.0)) == ("open", 29.0)


def test_one_that_opens_again_soon_goes_on_with_longer_pauses() -> None:
    breaker = opened()
    for _ in range(GOOD_PROBES):
        probe(breaker, good=True, now=30.0)
    assert fail(breaker, range(KEYS), 40.0), "nothing of before counts, and twenty keys are enough"
    assert breaker.until_probe(40.0) == 60.0


def test_one_that_opens_again_much_later_begins_anew() -> None:
    breaker = opened()
    for _ in range(GOOD_PROBES):
        probe(breaker, good=True, now=30.0)
    assert fail(breaker, range(KEYS), 31.0 + MOST_PAUSE)
    assert breaker.pause == FIRST_PAUSE
