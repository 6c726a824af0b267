"""What becomes of the records of a parked key: a table of ``fate``, and a search of the whole protocol."""

from __future__ import annotations

import pytest

from consumer.domain.parking import Fate, ParkedKey, ParkedShard, fate
from tests.unit.domain.park_model import MISTAKES, Mistake, search

PARKED = ParkedKey("D", "p1")
CLOSING = ParkedKey("D", "p1", "closing", nonce="n")
NO_LETTER = ParkedShard("D", "label", "shard", "p1", first="50")
LETTERS = ParkedShard("D", "label", "shard", "p1", first="50", letters=2, last="70")
OTHER_TIME = ParkedShard("D", "label", "shard", "p0", first="50", letters=2, last="70")


@pytest.mark.parametrize(
    ("key", "own", "number", "expected"),
    [
        (None, None, 60, "handle"),
        (None, LETTERS, 60, "handle"),
        (PARKED, None, 60, "join"),
        (CLOSING, None, 60, "hold"),
        (PARKED, OTHER_TIME, 60, "join"),
        (PARKED, NO_LETTER, 49, "skip"),
        (PARKED, NO_LETTER, 50, "letter"),
        (PARKED, LETTERS, 49, "skip"),
        (PARKED, LETTERS, 70, "skip"),
        (PARKED, LETTERS, 71, "letter"),
        (CLOSING, LETTERS, 70, "skip"),
        (CLOSING, LETTERS, 71, "hold"),
        (PARKED, LETTERS, 100, "letter"),  # numbers are no text
    ],
)
def test_what_becomes_of_a_record(key: ParkedKey | None, own: ParkedShard | None, number: int, expected: Fate) -> None:
    assert fate(key, own, number) == expected


def test_the_rules_hold() -> None:
    """First effects in order, and nothing lost, whoever ends when."""
    states, way = search()
    assert way == []
    assert states > 100_000, "the model must not be trivial"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_rule_is_needed(mistake: Mistake) -> None:
    _, way = search(mistake)
    assert way
