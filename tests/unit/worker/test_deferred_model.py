"""The rules of deferred keys, searched exhaustively: no violation with them, and one without each of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.worker.deferred_model import CASES, search
from tests.unit.worker.deferred_world import MISTAKES, Case, Mistake

MOST = 60_000  # states that a small case has at most, with a mistake or without


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_rules_hold(case: Case) -> None:
    """Order per key, nothing twice without a crash, nothing lost without a trace, and every shard ends."""
    states, way = search(case, MOST)
    assert way == ""
    assert states > 100, "the model must not be trivial"


SEEN_IN: dict[Mistake, str] = {  # the others show in "a child"
    "a record that is dropped hides how far the runs go": "runs are forgotten",
    "the meeting comes before the main reader is there": "runs are forgotten",
    "low and runs decide about a deferred key, too": "runs are forgotten",
    "a key joins a pass that is beyond its entry": "two keys and a child",
    "a pass takes what is before the entry": "two keys",
    "catch-up goes on from the horizon without a trace": "trims",
    "an old list is taken up again after progress": "two keys and a child",
    "a list does not hold back the next stream": "another stream",
    "the final save comes before a call has ended": "a hand-over",
    "a hand-over forgets the runs beyond what was read again": "a hand-over",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_rule_is_needed(mistake: Mistake) -> None:
    (case,) = (case for case in CASES if case.name == SEEN_IN.get(mistake, "a child"))
    _, way = search(replace(case, mistake=mistake), MOST)
    assert way


def test_a_model_that_loses_its_bounds_is_an_error() -> None:
    """A search that ends early has shown nothing."""
    with pytest.raises(AssertionError, match="more than 10 states"):
        search(CASES[0], 10)
