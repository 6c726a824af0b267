"""Pieces of a batch: Lambda's rules for every key by itself, and keys that hold up nothing but themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.domain.batching import Entry, PageHold
from consumer.domain.outcome import OK, HandlerFault, Outcome
from consumer.domain.pieces import Cut, Piece
from consumer.domain.settlement import GiveUp, Invoke, RetryPolicy
from tests.unit.domain.support import Account, record

NOW = 1_800_000_000.0
RAISED = Outcome("failed", fault=HandlerFault("raised", "ValueError", "poison"))
BUSY = Outcome("not_invoked", fault=HandlerFault("cancelled", "Closed", "no worker"))


def batch(text: str, **ages: float) -> list[Entry]:
    """``"a1 b2 a3"``: records by key and number; ``ages`` in seconds, by the same names."""
    hold = PageHold(Account(), 0, left=len(text.split()), event_bytes=0)
    return [
        Entry(index, name[:1].encode(), record(int(name[1:]), created=NOW - ages.get(name, 0.0)), hold)
        for index, name in enumerate(text.split())
    ]


def names(entries: Sequence[Entry]) -> str:
    return " ".join(f"{one.key.decode()}{one.record.sequence_number}" for one in entries)


def partial(*failed: int, exact: bool = True) -> Outcome:
    return Outcome("partial", failed=tuple(map(str, failed)), exact=exact)


def called(piece: Piece) -> str:
    """What the next call of this piece gets."""
    step = piece.next(NOW)
    assert isinstance(step, Invoke)
    return names(piece.entries[: len(step.records)])


def shown(cut: Cut) -> tuple[str, list[str]]:
    return names(cut.settled), [names(piece.entries) for piece in cut.pieces]


@pytest.mark.parametrize(
    ("records", "outcome", "settled", "pieces"),
    [
        ("a1 b2 a3", OK, "a1 b2 a3", []),
        # a whole failure: halves by keys, in the order in which the keys appear
        ("a1 b2 a3 c4", RAISED, "", ["a1 a3", "b2 c4"]),
        ("c1 a2 b3 c4", RAISED, "", ["c1 c4", "a2 b3"]),
        ("a1 b2", RAISED, "", ["a1", "b2"]),
        # a call that never ran: as it was
        ("a1 b2 a3", BUSY, "", ["a1 b2 a3"]),
        # an exact answer: each key up to its first failed record
        ("a1 b2 a3 c4", partial(1), "b2 c4", ["a1 a3"]),
        ("a1 b2 a3 c4", partial(3), "a1 b2 c4", ["a3"]),
        ("a1 b2 a3 c4 b5", partial(5, 3), "a1 b2 c4", ["a3", "b5"]),
        ("a1 b2", partial(1, 2), "", ["a1", "b2"]),
        # the function may have stopped at the one it names: records of other keys behind it are a piece of their own
        ("a1 b2 a3 c4", partial(1, exact=False), "", ["b2 c4", "a1 a3"]),
        ("a1 b2 a3 c4 b5", partial(3, exact=False), "a1 b2", ["c4 b5", "a3"]),
        ("a1 b2 c3", partial(3, exact=False), "a1 b2", ["c3"]),
        ("a9 b10", partial(9, exact=False), "", ["b10", "a9"]),
    ],
)
def test_what_comes_of_a_piece_of_several_keys(records: str, outcome: Outcome, settled: str, pieces: list[str]) -> None:
    """Everything that is not named goes on at once; numbers are compared as integers."""
    assert shown(Piece(RetryPolicy(), batch(records)).answered(outcome)) == (settled, pieces)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("bisect", "failed", "settled", "next_call"),
    [
        (True, None, "", "a1 a2"),
        (False, None, "", "a1 a2 a3 a4"),
        (True, 1, "", "a1 a2"),
        (False, 1, "", "a1 a2 a3 a4"),
        (True, 3, "a1 a2", "a3 a4"),
        (False, 3, "a1 a2", "a3 a4"),
    ],
)
def test_a_key_by_itself_follows_lambda(
    bisect: bool, failed: int | None, settled: str, next_call: str, *, exact: bool
) -> None:
    """Whether a function has stopped or not makes no difference then."""
    piece = Piece(RetryPolicy(bisect=bisect), batch("a1 a2 a3 a4"))
    assert called(piece) == "a1 a2 a3 a4"
    cut = piece.answered(RAISED if failed is None else partial(failed, exact=exact))
    assert names(cut.settled) == settled
    assert cut.pieces == (piece,)
    assert called(piece) == next_call


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_only_the_retries_of_a_key_that_stands_alone_count(retries: int) -> None:
    """The cut costs none; a partial answer that sets the key apart was its first call. Good keys are in no letter."""
    run = Run(RetryPolicy(max_retries=retries), {2: RAISED})
    run.settle("a1 b2 c3 d4")
    assert run.letters == ["b2"]
    assert run.calls == ["a1 b2 c3 d4", "a1 b2", "c3 d4", "a1", *["b2"] * (retries + 1)]
    run = Run(RetryPolicy(max_retries=retries), {2: partial(2)})
    run.settle("a1 b2 c3 d4")
    assert (run.letters, run.calls) == (["b2"], ["a1 b2 c3 d4", *["b2"] * retries])


def test_unlimited_retries_never_give_up() -> None:
    """-1: a key is tried for as long as its records are kept."""
    piece = Piece(RetryPolicy(max_retries=-1), batch("a1"))
    for attempt in range(1, 500):
        step = piece.next(NOW)
        assert isinstance(step, Invoke)
        assert step.attempt == attempt
        assert piece.answered(RAISED).pieces == (piece,)
    assert shown(piece.answered(OK)) == ("a1", [])


def test_calls_that_never_ran_back_off_and_cut_nothing() -> None:
    """They spend no retry, and the keys stay together."""
    piece = Piece(RetryPolicy(max_retries=0), batch("a1 b2"))
    for after in (0.0, 0.2, 0.4):
        step = piece.next(NOW)
        assert isinstance(step, Invoke)
        assert (step.after, step.attempt) == (after, 1)
        assert piece.answered(BUSY).pieces == (piece,)


def test_what_is_too_old_leaves_with_its_keys_and_the_other_keys_go_on() -> None:
    """The letter holds the records that are too old, and nothing else is settled with it."""
    piece = Piece(RetryPolicy(max_age=60), batch("a1 b2 a3 c4 b5", a1=90, b2=61))
    step = piece.next(NOW)
    assert isinstance(step, GiveUp)
    assert len(step.records) == 2
    first, rest = piece.expired(step)
    assert rest is not None
    assert (names(first.entries), names(rest.entries)) == ("a1 b2 a3 b5", "c4")
    assert set(first.keys).isdisjoint(rest.keys)
    assert shown(first.gave_up()) == ("a1 b2", ["a3 b5"])


def test_a_piece_whose_keys_are_all_in_the_letter_stays_as_it_is() -> None:
    """Its later records follow when the letter is durable."""
    piece = Piece(RetryPolicy(max_age=60), batch("a1 a2", a1=90))
    step = piece.next(NOW)
    assert isinstance(step, GiveUp)
    assert piece.expired(step) == (piece, None)
    assert shown(piece.gave_up()) == ("a1", ["a2"])
    assert called(piece) == "a2"


def test_what_is_too_old_keeps_its_history_and_its_request() -> None:
    """A letter says how often its records were tried, and in which request."""
    policy = RetryPolicy(max_age=60, bisect=False)
    piece = Piece(policy, batch("a1 b2", a1=59, b2=0))
    piece.request_id = "request"
    piece.next(NOW)
    piece.answered(BUSY)
    step = piece.next(NOW + 2)
    assert isinstance(step, GiveUp)
    first, rest = piece.expired(step)
    assert rest is not None
    assert (first.request_id, rest.request_id) == ("request", "")
    assert (step.invoked, step.fault) == (False, BUSY.fault)


def test_a_key_that_is_deferred_keeps_only_what_it_tries() -> None:
    """The half behind it is read again later."""
    piece = Piece(RetryPolicy(), batch("a1 a2 a3 a4"))
    piece.next(NOW)
    piece.answered(RAISED)
    assert names(piece.keep_current()) == "a3 a4"
    assert names(piece.entries) == called(piece) == "a1 a2"
    assert shown(piece.answered(OK)) == ("a1 a2", [])


def test_a_settled_piece_goes_on_no_more() -> None:
    piece = Piece(RetryPolicy(), batch("a1"))
    piece.answered(OK)
    with pytest.raises(RuntimeError, match="settled"):
        piece.next(NOW)


@dataclass
class Run:
    """Settles a batch piece by piece. Every call that holds one of the numbers in ``fails`` comes to that outcome."""

    policy: RetryPolicy
    fails: dict[int, Outcome]
    calls: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    settled: list[Entry] = field(default_factory=list)
    choose: Callable[[int], int] = lambda count: 0

    def settle(self, records: str) -> None:
        pieces = [Piece(self.policy, batch(records))]
        while pieces:
            assert len(self.calls) < 1000, "it does not end"
            piece = pieces.pop(self.choose(len(pieces)))
            step = piece.next(NOW)
            if isinstance(step, GiveUp):
                self.letters.append(names(piece.entries[: len(step.records)]))
                cut = piece.gave_up()
            else:
                self.calls.append(called(piece))
                numbers = [int(one.sequence_number) for one in step.records]
                found = next((self.fails[number] for number in numbers if number in self.fails), OK)
                cut = piece.answered(self.known(found, numbers))
            self.settled += cut.settled
            pieces += cut.pieces
            keys = [key for one in pieces for key in one.keys]
            assert len(keys) == len(set(keys)), "pieces share no key"

    @staticmethod
    def known(outcome: Outcome, numbers: list[int]) -> Outcome:
        """An answer names only records of the call."""
        if outcome.kind != "partial":
            return outcome
        return partial(*(number for number in map(int, outcome.failed) if number in numbers), exact=outcome.exact)


@given(
    keys=st.text("abcd", min_size=1, max_size=12),
    poison=st.sets(st.integers(1, 12), max_size=4),
    answer=st.sampled_from(["raises", "names all", "stops at the first"]),
    retries=st.integers(0, 2),
    bisect=st.booleans(),
    data=st.data(),
)
@settings(max_examples=300, deadline=None)
def test_every_record_is_settled_once_and_only_keys_that_fail_are_in_letters(
    keys: str, poison: set[int], answer: str, retries: int, bisect: bool, data: st.DataObject
) -> None:
    """In whatever order the pieces go on: each key in its order, and what holds no failing record is handled."""
    text = " ".join(f"{key}{number}" for number, key in enumerate(keys, 1))
    bad = sorted(number for number in poison if number <= len(keys))
    outcomes = {
        "raises": dict.fromkeys(bad, RAISED),
        "names all": {number: partial(*bad) for number in bad},
        "stops at the first": {number: partial(number, exact=False) for number in bad},
    }
    run = Run(RetryPolicy(max_retries=retries, bisect=bisect), outcomes[answer])
    run.choose = lambda count: data.draw(st.integers(0, count - 1))
    run.settle(text)
    numbers = [int(one.record.sequence_number) for one in run.settled]
    assert sorted(numbers) == list(range(1, len(keys) + 1)), "each once"
    for key in set(keys):
        own = [int(one.record.sequence_number) for one in run.settled if one.key == key.encode()]
        assert own == sorted(own), "a key in its order"
    for letter in run.letters:
        given_up = {int(name[1:]) for name in letter.split()}
        assert given_up & poison
        assert len({name[0] for name in letter.split()}) == 1, "no other key is given up with it"
        assert not bisect or len(given_up) == 1
    in_letters = {int(name[1:]) for letter in run.letters for name in letter.split()}
    assert set(bad) <= in_letters
