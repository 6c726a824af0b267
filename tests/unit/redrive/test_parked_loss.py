"""A letter of a parked key that is not there, or cannot be read: never passed over in silence."""

from __future__ import annotations

from structlog.testing import capture_logs

from tests.unit.redrive.parked_world import Box, letter, redriven


def test_a_missing_letter_leaves_the_key_parked_and_what_follows_untouched() -> None:
    result, world, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=False)
    assert (result.left, result.handled, free) == ("missing", 1, False)
    assert "letter 2 of 3" in result.detail
    assert world.handled == ["1"]
    assert world.claims.lost == []


def test_a_loss_that_is_accepted_leaves_a_trace_and_frees_the_key() -> None:
    with capture_logs() as logs:
        result, world, free = redriven(Box(letter(1), letter(3)), 3, accept_loss=True)
    assert (result.left, free) == (None, True)
    assert world.handled == ["1", "3"]
    assert [(digest, ordinal) for digest, _, ordinal, _ in world.claims.lost] == [("digest", 2)]
    (entry,) = [entry for entry in logs if entry["event"] == "dead_letter.passed_over"]
    assert (entry["log_level"], entry["ordinal"]) == ("error", 2)


def test_a_letter_that_cannot_be_read_says_why() -> None:
    result, world, free = redriven(Box(letter(1), letter(2, "its payload is gone")), 2, accept_loss=False)
    assert (result.left, free) == ("unreadable", False)
    assert "its payload is gone" in result.detail
    assert world.handled == ["1"]


def test_of_two_copies_the_readable_one_counts() -> None:
    box = Box(letter(1, "damaged"), letter(1))
    result, world, free = redriven(box, 1, accept_loss=False)
    assert (result.left, free) == (None, True)
    assert world.handled == ["1"]
    assert box.letters == [], "all copies of it are removed"
