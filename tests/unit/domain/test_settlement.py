"""The settlement of a batch: observed sequences as tables, everything else as a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.domain.outcome import OK, HandlerFault, Outcome
from consumer.domain.record import Record
from consumer.domain.settlement import GiveUp, Invoke, RetryPolicy, Settlement
from tests.unit.domain.support import numbers, record, records

RAISED = Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))
BUSY = Outcome("not_invoked", fault=HandlerFault("cancelled", "Closed", "no worker"))
NOW = 1_800_000_000.0
DAY = 86_400.0


def partial(*failed: int) -> Outcome:
    return Outcome("partial", failed=tuple(str(number) for number in failed))


def raises_on(*poison: int) -> Callable[[list[int]], Outcome]:
    return lambda batch: RAISED if set(batch) & set(poison) else OK


def reports(*poison: int) -> Callable[[list[int]], Outcome]:
    return lambda batch: partial(*bad) if (bad := sorted(set(batch) & set(poison), reverse=True)) else OK


class Run:
    """Drives a settlement to its end and keeps what happened."""

    def __init__(self, policy: RetryPolicy, batch: list[Record], answer: Callable[[list[int]], Outcome]) -> None:
        self.calls: list[list[int]] = []
        self.invokes: list[Invoke] = []
        self.given_up: list[GiveUp] = []
        self.settled: list[int] = []
        settlement = Settlement(policy, batch)
        while (step := settlement.next(NOW)) is not None:
            if isinstance(step, GiveUp):
                self.given_up.append(step)
                self.settled += numbers(settlement.gave_up())
            else:
                self.invokes.append(step)
                self.calls.append(numbers(step.records))
                self.settled += numbers(settlement.answered(answer(self.calls[-1])))
            assert len(self.calls) < 5000, "does not end"


@pytest.mark.parametrize(
    ("bisect", "answer", "calls", "dead", "count"),
    [
        (True, raises_on(2), [[1, 2, 3, 4], [1, 2], [1], [2], [2], [3, 4]], [2], 2),
        (False, reports(2), [[1, 2, 3, 4], [2, 3, 4], [2, 3, 4]], [2, 3, 4], 2),
        (True, reports(2), [[1, 2, 3, 4], [2, 3, 4], [2], [2], [3, 4]], [2], 2),
        (False, raises_on(2), [[1, 2, 3, 4], [1, 2, 3, 4]], [1, 2, 3, 4], 2),
        (True, reports(1), [[1, 2, 3, 4], [1, 2], [1], [1], [2], [3, 4]], [1], 2),
        (True, raises_on(4), [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4], [4]], [4], 2),
        (True, raises_on(), [[1, 2, 3, 4]], None, 0),
    ],
)
def test_sequences_observed_on_lambda(
    bisect: bool, answer: Callable[[list[int]], Outcome], calls: list[list[int]], dead: list[int] | None, count: int
) -> None:
    """Batches of four with one retry are called exactly as Lambda calls them."""
    run = Run(RetryPolicy(max_retries=1, bisect=bisect), records(1, 2, 3, 4), answer)
    assert run.calls == calls
    assert run.settled == [1, 2, 3, 4]
    assert [(numbers(step.records), step.invocations) for step in run.given_up] == ([(dead, count)] if dead else [])


def test_partial_failures_with_three_retries_as_recorded() -> None:
    """Batches of three with record 5 bad: 0 to 4 once, 5 in its first batch and four times alone, count 4."""
    policy = RetryPolicy(max_retries=3, bisect=False)
    first, second = Run(policy, records(0, 1, 2), reports(5)), Run(policy, records(3, 4, 5), reports(5))
    assert first.calls == [[0, 1, 2]]
    assert second.calls == [[3, 4, 5], [5], [5], [5], [5]]
    assert [(step.condition, step.invocations) for step in second.given_up] == [("RetryAttemptsExhausted", 4)]


@pytest.mark.parametrize("retries", [0, 1, 2, 7])
@pytest.mark.parametrize("outcome", [RAISED, partial(9)])
def test_n_retries_are_n_plus_1_invocations(retries: int, outcome: Outcome) -> None:
    """A poison record is invoked once and n times again, whether the handler raises or reports it."""
    run = Run(RetryPolicy(max_retries=retries), records(9), lambda _: outcome)
    assert len(run.calls) == retries + 1
    assert [step.attempt for step in run.invokes] == list(range(1, retries + 2))
    (step,) = run.given_up
    assert (step.condition, step.invocations, step.invoked) == ("RetryAttemptsExhausted", retries + 1, True)
    assert step.fault is not None
    assert step.fault.kind == ("raised" if outcome is RAISED else "reported")


def test_unlimited_retries_do_not_end_by_count() -> None:
    """With -1 a failing record is retried a thousand times and then still settles."""
    answers = iter([RAISED] * 1000 + [OK])
    run = Run(RetryPolicy(max_retries=-1), [record(1, created=NOW - 60)], lambda _: next(answers))
    assert len(run.calls) == 1001
    assert run.given_up == []


def test_request_ids_are_fresh_for_new_batches_only() -> None:
    """A retry keeps its request id; halves and rests get a new one."""
    run = Run(RetryPolicy(max_retries=1), records(1, 2, 3, 4), raises_on(2))
    assert [step.fresh_request for step in run.invokes] == [True, True, True, True, False, True]
    run = Run(RetryPolicy(max_retries=1, bisect=False), records(1, 2, 3), reports(2))
    assert [(step.fresh_request, step.attempt) for step in run.invokes] == [(True, 1), (True, 1), (False, 2)]


def test_back_off_doubles_to_its_maximum_and_only_after_failures() -> None:
    """0.2, 0.4, ... seconds up to the maximum; halves and rests start at once."""
    policy = RetryPolicy(max_retries=6, initial_backoff=0.2, max_backoff=2.0)
    run = Run(policy, records(1), lambda _: RAISED)
    assert [step.after for step in run.invokes] == [0.0, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert {step.after for step in Run(policy, records(1, 2), raises_on(2)).invokes[:3]} == {0.0}
    assert policy.backoff(10_000) == 2.0


def test_calls_that_never_ran_spend_nothing() -> None:
    """Throttles before user code ran take no retry and no attempt number, but they back off and never bisect."""
    answers = iter([BUSY, BUSY, BUSY, RAISED, BUSY, BUSY, RAISED])
    run = Run(RetryPolicy(max_retries=1, bisect=True), records(1), lambda _: next(answers))
    assert [step.attempt for step in run.invokes] == [1, 1, 1, 1, 2, 2, 2]
    assert [step.after for step in run.invokes][:3] == [0.0, 0.2, 0.4]
    assert run.given_up[0].invocations == 2
    answers = iter([BUSY, OK])
    assert Run(RetryPolicy(), records(1, 2), lambda _: next(answers)).calls == [[1, 2], [1, 2]]


def test_expired_before_the_first_call_is_never_invoked() -> None:
    """A batch that is too old goes to the dead letters unseen; Lambda's count says 1 all the same."""
    run = Run(RetryPolicy(max_age=60), [record(n, created=NOW - 61) for n in (1, 2)], lambda _: OK)
    assert run.calls == []
    (step,) = run.given_up
    assert numbers(step.records) == [1, 2]
    assert (step.condition, step.invocations, step.invoked, step.fault) == ("RecordAgeExceeded", 1, False, None)


def test_only_the_expired_prefix_is_given_up() -> None:
    """The records after the too old ones are handled; exactly at the limit is not too old."""
    batch = [record(n, created=NOW - age) for n, age in ((1, 90), (2, 61), (3, 60), (4, 1))]
    run = Run(RetryPolicy(max_age=60), batch, lambda _: OK)
    assert [numbers(step.records) for step in run.given_up] == [[1, 2]]
    assert run.calls == [[3, 4]]
    assert run.invokes[0].fresh_request
    assert run.settled == [1, 2, 3, 4]


def test_unknown_creation_times_never_expire() -> None:
    """Without a creation time nothing can be too old."""
    assert Run(RetryPolicy(max_age=60), records(1, 2), lambda _: OK).calls == [[1, 2]]


def test_expiring_while_retrying_ends_the_retries() -> None:
    """Unlimited retries end when the record is too old, with the true count and the last fault."""
    settlement = Settlement(RetryPolicy(max_age=60), [record(1, created=NOW)])
    for attempt in range(1, 9):
        assert isinstance(settlement.next(NOW + attempt), Invoke)
        settlement.answered(RAISED)
    step = settlement.next(NOW + 61)
    assert isinstance(step, GiveUp)
    assert (step.condition, step.invocations, step.invoked) == ("RecordAgeExceeded", 8, True)
    assert step.fault is RAISED.fault
    assert numbers(settlement.gave_up()) == [1]
    assert settlement.next(NOW) is None


def test_expired_prefix_of_a_retried_batch_keeps_its_history() -> None:
    """The old part of a retried batch is given up as invoked; the rest is a new batch."""
    settlement = Settlement(
        RetryPolicy(max_age=60, bisect=False), [record(1, created=NOW), record(2, created=NOW + 30)]
    )
    settlement.next(NOW + 40)
    settlement.answered(RAISED)
    step = settlement.next(NOW + 61)
    assert isinstance(step, GiveUp)
    assert (numbers(step.records), step.invocations, step.invoked) == ([1], 1, True)
    settlement.gave_up()
    step = settlement.next(NOW + 61)
    assert isinstance(step, Invoke)
    assert (numbers(step.records), step.attempt, step.fresh_request) == ([2], 1, True)


def test_exhausted_batches_are_not_revived_by_age() -> None:
    """When the retries are spent the whole batch is given up, even if a part of it became too old meanwhile."""
    settlement = Settlement(
        RetryPolicy(max_retries=0, max_age=60, bisect=False), [record(1, created=NOW), record(2, created=NOW + 30)]
    )
    settlement.next(NOW + 40)
    settlement.answered(RAISED)
    step = settlement.next(NOW + 61)
    assert isinstance(step, GiveUp)
    assert (step.condition, numbers(step.records), step.invocations) == ("RetryAttemptsExhausted", [1, 2], 1)


def test_retention_ends_retries_but_never_a_first_call() -> None:
    """A backlog of more than 24 hours is still handled once; a failure then ends it."""
    batch = [record(1, created=NOW - DAY - 1)]
    assert Run(RetryPolicy(), batch, lambda _: OK).calls == [[1]]
    run = Run(RetryPolicy(), batch, lambda _: RAISED)
    assert run.calls == [[1]]
    assert [(step.condition, step.invocations) for step in run.given_up] == [("RecordAgeExceeded", 1)]
    longer = Run(RetryPolicy(max_age=7 * DAY), batch, lambda _: RAISED)
    assert longer.calls == [[1]]
    again = iter([BUSY, BUSY, OK])
    assert len(Run(RetryPolicy(), batch, lambda _: next(again)).calls) == 3


@pytest.mark.parametrize(("failed", "rest"), [((99, 100), [99, 100]), ((100, 99), [99, 100]), ((100,), [100])])
def test_the_lowest_failed_number_counts_as_an_integer(failed: tuple[int, ...], rest: list[int]) -> None:
    """``99`` lies before ``100``, although not as text, and in whatever order the handler names them."""
    settlement = Settlement(RetryPolicy(), records(98, 99, 100))
    settlement.next(NOW)
    settled = settlement.answered(partial(*failed))
    step = settlement.next(NOW)
    assert step is not None
    assert numbers(settled) + numbers(step.records) == [98, 99, 100]
    assert numbers(step.records) == rest


@given(
    size=st.integers(1, 24),
    poison=st.sets(st.integers(1, 24)),
    retries=st.integers(0, 3),
    bisect=st.booleans(),
    max_age=st.one_of(st.none(), st.integers(60, 10_000).map(float)),
    data=st.data(),
)
@settings(max_examples=400, deadline=None)
def test_every_record_settles_once_in_order_whatever_the_handler_answers(
    size: int, poison: set[int], retries: int, bisect: bool, max_age: float | None, data: st.DataObject
) -> None:
    """Good calls succeed, calls with poison fail in any way: nothing is lost, repeated or reordered, and it ends."""
    ages = sorted(data.draw(st.lists(st.integers(0, 120), min_size=size, max_size=size)), reverse=True)
    batch = [record(n, created=NOW - age) for n, age in enumerate(ages, 1)]
    too_old = {n for n, age in enumerate(ages, 1) if max_age is not None and age > max_age}
    throttled = 0

    def answer(call: list[int]) -> Outcome:
        nonlocal throttled
        kinds = ["ok"] if not poison & set(call) else ["failed", "reported", "reported too much"]
        kind = data.draw(st.sampled_from(kinds if throttled > 20 else [*kinds, "not_invoked"]))
        if kind == "not_invoked":
            throttled += 1
            return BUSY
        if kind == "ok":
            return OK
        if kind == "failed":
            return RAISED
        bad = sorted(poison & set(call))
        if kind == "reported too much":  # good records above a poison one, in any order, also twice
            more = [n for n in call if n > bad[0]]
            bad += data.draw(st.lists(st.sampled_from(more))) if more else []
            bad = data.draw(st.permutations(bad))
        return partial(*bad)

    run = Run(RetryPolicy(max_retries=retries, bisect=bisect, max_age=max_age), batch, answer)
    assert run.settled == list(range(1, size + 1))
    dead: set[int] = set()
    for step in run.given_up:
        given = numbers(step.records)
        dead |= set(given)
        if step.condition == "RecordAgeExceeded":
            assert set(given) <= too_old
            assert (step.invocations, step.invoked) == (1, False)
            continue
        assert step.invocations == retries + 1
        assert poison & set(given)
        assert step.fault is not None
        if bisect:
            assert len(given) == 1
    assert poison & set(range(1, size + 1)) <= dead
    for call in run.calls:
        assert not too_old & set(call)


def test_what_waits_behind_the_records_that_are_tried_can_be_given_up() -> None:
    """A key that is deferred keeps the half that fails; the other one is read again later."""
    settlement = Settlement(RetryPolicy(max_retries=5), records(1, 2, 3, 4))
    settlement.next(NOW)
    settlement.answered(RAISED)
    settlement.next(NOW)
    settlement.answered(RAISED)
    assert settlement.keep_current() == 1
    assert settlement.keep_current() == 1, "there is nothing more behind it"
    step = settlement.next(NOW)
    assert isinstance(step, Invoke)
    assert numbers(step.records) == [1]
    assert numbers(settlement.answered(OK)) == [1]
    assert settlement.next(NOW) is None


def test_a_part_of_a_batch_continues_its_history_for_what_is_given_up_only() -> None:
    """The letter says how often its records were tried; those behind them are a new batch, and in no letter."""
    whole = Settlement(RetryPolicy(max_age=60, bisect=False), [record(1, created=NOW), record(2, created=NOW + 30)])
    whole.next(NOW)
    whole.answered(RAISED)
    part = Settlement(RetryPolicy(max_age=60, bisect=False), records(1, 3))
    part.continue_from(whole, 1)
    assert numbers(part.gave_up()) == [1]
    step = part.next(NOW)
    assert isinstance(step, Invoke)
    assert (numbers(step.records), step.attempt) == ([3], 1)
    same = Settlement(RetryPolicy(max_retries=0), records(1))
    same.continue_from(whole, 1)
    step = same.next(NOW)
    assert isinstance(step, GiveUp)
    assert (step.invocations, step.fault) == (1, RAISED.fault)
