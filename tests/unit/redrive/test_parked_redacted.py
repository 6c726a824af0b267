"""Redacted letters of a parked key: each is handled in its turn, with the item as it is then."""

from __future__ import annotations

from consumer.redrive.reading_again import ReadingAgain
from tests.unit.redrive.parked_world import Box, Items, letter, redriven

LACKS = ("ssn",)


def test_consecutive_letters_of_an_item_are_one_event_and_the_key_is_free() -> None:
    box = Box(letter(1), *(letter(ordinal, lacks=LACKS) for ordinal in (2, 3, 4)))
    result, world, free = redriven(box, 4, again=ReadingAgain(Items(a=7)))
    assert (result.left, result.handled, free) == (None, 4, True)
    assert world.handled == ["1", "4"]
    assert world.images == [("INSERT", None), ("INSERT", 8)]
    assert box.letters == []


def test_items_of_a_key_keep_their_turns() -> None:
    box = Box(*(letter(n, item=item, lacks=LACKS) for n, item in enumerate("aabba", 1)))
    result, world, free = redriven(box, 5, again=ReadingAgain(Items(a=10, b=20)))
    assert (result.left, free) == (None, True)
    assert world.handled == ["2", "4", "5"]
    assert world.images == [("INSERT", 11), ("INSERT", 21), ("INSERT", 12)], "the newest, never an older one again"


def test_an_item_that_is_gone_is_told_as_removed() -> None:
    result, world, free = redriven(Box(letter(1, lacks=LACKS)), 1, again=ReadingAgain(Items()))
    assert (result.left, free) == (None, True)
    assert world.images == [("REMOVE", None)]


def test_a_failure_counts_no_letter_of_its_event_and_all_before_it() -> None:
    box = Box(letter(1, item="b", lacks=LACKS), *(letter(ordinal, lacks=LACKS) for ordinal in (2, 3, 4)))
    result, world, free = redriven(box, 4, again=ReadingAgain(Items(a=1, b=1)), failing="4")
    assert (result.left, result.handled, free) == ("failed", 1, False)
    assert "letter 2 of 4" in result.detail
    assert world.handled == ["1"]
    assert len(box.letters) == 3


def test_a_letter_whose_item_cannot_be_read_leaves_the_key_parked_behind_what_is_whole() -> None:
    box = Box(letter(1), letter(2, lacks=LACKS), letter(3))
    result, world, free = redriven(box, 3, again=ReadingAgain(None, "--check none reads no items"))
    assert (result.left, result.handled, free) == ("redacted", 1, False)
    assert "letter 2 of 3" in result.detail
    assert "--check none" in result.detail
    assert world.handled == ["1"]


def test_such_a_letter_is_passed_over_only_when_its_loss_is_accepted_and_leaves_a_trace() -> None:
    box = Box(letter(1), letter(2, lacks=LACKS), letter(3))
    result, world, free = redriven(box, 3, accept_loss=True)
    assert (result.left, free) == (None, True)
    assert world.handled == ["1", "3"]
    assert [ordinal for _, _, ordinal, _ in world.claims.lost] == [2]


def test_of_two_copies_the_whole_one_counts() -> None:
    result, world, free = redriven(Box(letter(1, lacks=LACKS), letter(1)), 1)
    assert (result.left, free) == (None, True)
    assert world.images == [("INSERT", None)], "as it was sent"
