"""SessionValidity, observation, and which leases are free."""

from __future__ import annotations

import pytest

from consumer.domain.lease import (
    TAKE_MARGIN,
    LeaseRow,
    LeaseState,
    Observer,
    SessionRow,
    SessionValidity,
    duration_of,
    name_of,
)

D = 20.0


def test_belief_counts_from_the_sending_of_a_bump() -> None:
    """A bump sent at 100 holds until 120, however late its answer came; the end itself is outside."""
    validity = SessionValidity()
    assert not validity.holds(0.0)
    validity.renewed(100.0, D)
    assert validity.holds(119.999)
    assert not validity.holds(120.0)


def test_late_answers_never_shorten_the_belief() -> None:
    """Answers that arrive out of order leave the latest sending in force."""
    validity = SessionValidity()
    validity.renewed(110.0, D)
    validity.renewed(100.0, D)
    assert validity.valid_until == 130.0


def test_a_fenced_incarnation_never_believes_again() -> None:
    """Not even when the answer to an earlier bump arrives after the loss."""
    validity = SessionValidity()
    validity.renewed(100.0, D)
    validity.lost()
    assert not validity.holds(101.0)
    validity.renewed(100.5, D)
    assert not validity.holds(101.0)


def see(observer: Observer, now: float, *, owners: tuple[str, ...] = (), **counters: int) -> None:
    observer.observe([SessionRow(who, counter) for who, counter in counters.items()], owners, now)


def test_only_an_unmoved_counter_expires() -> None:
    """1.1 x duration after the reading that first showed the counter, and not earlier."""
    observer = Observer(D)
    see(observer, 0.0, a=1, b=1)
    see(observer, 10.0, a=1, b=2)
    wait = D * TAKE_MARGIN
    assert observer.expired(wait - 0.001) == []
    assert observer.expired(wait) == ["a"]
    assert sorted(observer.expired(10.0 + wait)) == ["a", "b"]


@pytest.mark.parametrize("counter", [0, 2, 7])
def test_any_other_counter_is_a_sign_of_life(counter: int) -> None:
    """Also a smaller one: only equality counts."""
    observer = Observer(D)
    see(observer, 0.0, a=1)
    see(observer, 21.0, a=counter)
    assert observer.expired(30.0) == []


def test_observers_outwait_believers_at_any_clock_rates_that_differ_by_less_than_ten_percent() -> None:
    """Seen right after the send by a fast clock, the validity of a slow clock still ends before the expiry."""
    for rate in (0.92, 0.96, 1.0, 1.04):
        believed_until = D / rate  # true seconds after the send, on the owner's clock of this rate
        expired_at = D * TAKE_MARGIN / (rate * 1.0999)  # on an observer's clock that is just under 10 % faster
        assert expired_at > believed_until


def test_owners_without_a_session_row_are_watched_too() -> None:
    """Such an incarnation cannot renew, but may still be valid for a while."""
    observer = Observer(D)
    see(observer, 5.0, owners=("ghost",))
    assert observer.expired(5.0 + 21.9) == []
    assert observer.expired(5.0 + 22.0) == ["ghost"]


def test_a_row_that_vanishes_or_appears_starts_the_wait_anew() -> None:
    """From a counter to no row, and back, the clock starts again."""
    observer = Observer(D)
    see(observer, 0.0, a=1)
    see(observer, 15.0, owners=("a",))
    assert observer.expired(36.0) == []
    see(observer, 36.0, owners=("a",), a=1)
    assert observer.expired(57.0) == []
    assert observer.expired(58.0) == ["a"]


@pytest.mark.parametrize("theirs", [2.0, 10.0, 60.0])
def test_each_is_waited_for_as_long_as_it_relies_on_its_leases_itself(theirs: float) -> None:
    """Also when only a lease row is left to name it: replicas are configured one after the other."""
    alive, ghost = name_of("host/1", "alive", theirs), name_of("host/1", "ghost", theirs)
    observer = Observer(D)
    observer.observe([SessionRow(alive)], [ghost], 0.0)
    assert observer.expired(theirs * TAKE_MARGIN - 0.001) == []
    assert observer.expired(theirs * TAKE_MARGIN) == [ghost, alive]


@pytest.mark.parametrize("seconds", [1.0, 2.5, 10.0, 0.000001, 299.999999])
def test_the_name_of_an_incarnation_says_how_long_it_relies_on_its_leases(seconds: float) -> None:
    name = name_of("host-1/77", "ab12", seconds)
    assert (duration_of(name), SessionRow(name).duration) == (seconds, seconds)
    assert name_of("h/1", "u", 60.0) == "h/1/u/60s"


@pytest.mark.parametrize(
    "name", ["", "stranger", "60s", "host/1/uuid", "host/1/u/s", "host/1/u/-5s", "h/u/1e9s", "u/5s/x"]
)
def test_a_name_that_says_nothing_of_it(name: str) -> None:
    """Written by hand; the observer's own duration has to do, and nobody can renew under such a name."""
    assert duration_of(name) is None
    assert Observer(D).duration(name) == D
    with pytest.raises(ValueError, match="names no duration"):
        _ = SessionRow(name).duration


def test_who_is_gone_is_forgotten() -> None:
    """Neither a session nor an owner: nothing to expire, and nothing known about it."""
    observer = Observer(D)
    see(observer, 0.0, a=1, b=1)
    see(observer, 1.0, b=1)
    assert observer.expired(1000.0) == ["b"]


@pytest.mark.parametrize(
    ("state", "settled", "finished"),
    [
        ("waiting", False, False),
        ("open", False, False),
        ("halted", False, False),
        ("draining", True, False),
        ("done", True, True),
    ],
)
def test_states(state: LeaseState, settled: bool, finished: bool) -> None:
    """Children may start behind a drained shard; only a done one needs no owner."""
    row = LeaseRow("s", state=state)
    assert (row.settled, row.finished) == (settled, finished)
