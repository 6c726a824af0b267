"""Going on at a record of Kinesis: was it there again, is it gone, and were records lost then?"""

from __future__ import annotations

from typing import Any

import pytest

from consumer.domain.completeness import EVERY, SLACK, Completeness, as_if_kept, lost_nothing
from consumer.domain.kinesis_numbers import book_number
from consumer.domain.kinesis_resume import LOOKS, STUCK, Resume, decoded, encoded
from consumer.domain.shards import DAY

SEQUENCE = "49590338271490256608559692538361571095921575989136588898"
LATER = str(int(SEQUENCE) + 12345)
NUMBER = book_number(SEQUENCE)


def after(resume: Resume, first: str | None, **answer: Any) -> tuple[str, Resume]:
    return resume.after(first, **{"behind": 0.0, "ended": False, "retention": DAY, **answer})


def test_the_record_that_comes_back_is_found() -> None:
    verdict, following = after(Resume(NUMBER), NUMBER)
    assert (verdict, following.found) == ("found", True)
    assert after(following, book_number(LATER))[0] == "found", "asked for once"


def test_the_aggregate_that_comes_back_is_found_at_its_first_place() -> None:
    assert after(Resume(book_number(SEQUENCE, 7)), book_number(SEQUENCE, 0))[0] == "found"


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (book_number(LATER), {}),
        (None, {"ended": True, "behind": None}),
    ],
    ids=["another record", "the end of the shard"],
)
def test_what_shows_that_the_record_is_gone(first: str | None, answer: dict[str, Any]) -> None:
    assert after(Resume(NUMBER), first, **answer)[0] == "gone"


def looks_until_gone(*behind: float | None) -> int:
    """After how many empty answers that say so the record is gone, the last of which is repeated."""
    resume = Resume(NUMBER)
    for look in range(1, 1000):
        verdict, resume = after(resume, None, behind=behind[min(look, len(behind)) - 1])
        if verdict == "gone":
            return look
    return 1000


@pytest.mark.parametrize("behind", [0.0, None, DAY, DAY - SLACK, 2 * DAY])
def test_an_empty_answer_from_either_end_is_believed_when_it_comes_again(behind: float | None) -> None:
    assert looks_until_gone(behind) == LOOKS


def test_empty_pages_on_the_way_say_nothing() -> None:
    """As long as they come nearer to the tip."""
    way = [DAY - SLACK - 10.0 * step for step in range(500)]
    assert looks_until_gone(*way, 0.0) == 500 + LOOKS
    assert looks_until_gone(DAY - 1.0, *way, 0.0) == 501 + LOOKS


def test_a_place_that_comes_no_nearer_to_the_tip_is_one_that_was_trimmed() -> None:
    """As after a retention that was raised: the place is less than a retention behind, for ever."""
    assert looks_until_gone(DAY / 2) == STUCK
    assert looks_until_gone(*(DAY / 2 + step for step in range(500))) == STUCK, "time goes on"


def test_what_was_read_before_is_left_out_until_something_newer_came() -> None:
    resume = Resume(NUMBER, found=True)
    assert resume.beyond(None) == resume.beyond(book_number(str(int(SEQUENCE) - 1))) == resume
    assert resume.beyond(NUMBER) is resume.beyond(book_number(LATER)) is None


def test_a_service_that_does_not_say_how_far_it_is_behind() -> None:
    verdict, following = after(Resume(NUMBER), None, behind=None)
    assert (verdict, following.looks) == ("wait", 1)


@pytest.mark.parametrize(
    ("seen", "retention", "nothing"),
    [
        (0.0, DAY, False),
        (-DAY + SLACK + 1, DAY, True),
        (-DAY + SLACK - 1, DAY, False),
        (-2 * DAY, 7 * DAY, True),
        (-2 * DAY, DAY, False),
    ],
)
def test_nothing_is_lost_when_the_shard_was_complete_lately(seen: float, retention: float, *, nothing: bool) -> None:
    now = 1_800_000_000.0
    resume = Resume(NUMBER, complete_at=now + seen if seen else 0.0)
    assert resume.lost_nothing(now, retention) is nothing


def test_what_is_read_of_an_aggregate() -> None:
    places = [book_number(SEQUENCE, place) for place in range(4)]
    settled = Resume(places[1])
    assert [settled.is_wanted(number) for number in (*places, book_number(LATER))] == [False, False, True, True, True]
    assert [Resume(places[1], wanted=True).is_wanted(number) for number in places] == [False, True, True, True]


@pytest.mark.parametrize(
    "resume",
    [
        None,
        Resume(NUMBER),
        Resume(book_number(SEQUENCE, 1_750_000), wanted=True, complete_at=1_799_999_999.123456, looks=2, least=12.5),
        Resume(NUMBER, found=True),
    ],
)
def test_it_travels_in_the_iterator(resume: Resume | None) -> None:
    assert decoded(encoded(resume, "AAAAAAAAAAF/+==")) == (resume, "AAAAAAAAAAF/+==")


@pytest.mark.parametrize("token", ["", "AAAA", "1,2|AAAA"])
def test_what_is_no_iterator_of_ours(token: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind: it never left this program
        decoded(token)


class TestCompleteness:
    def test_an_idle_shard_is_stored_once_an_hour(self) -> None:
        complete, stored = Completeness(0.0), 0
        for second in range(1_800_000_000, 1_800_000_000 + 3 * int(EVERY), 5):
            before = complete.version
            complete.seen(float(second), DAY)
            stored += complete.version > before
        assert stored == 3
        assert complete.at == 1_800_000_000 + 3 * EVERY - 5, "what is written anyway has the last one"

    def test_it_never_goes_back(self) -> None:
        complete = Completeness(1_800_000_000.0)
        complete.seen(1_700_000_000.0, 7 * DAY)
        assert (complete.at, complete.kept_for, complete.version) == (1_800_000_000.0, 0.0, 0)

    def test_a_retention_that_was_raised_brings_nothing_back(self) -> None:
        """Complete two days ago, when records were kept for a day, which is a week now: what came right after that was
        trimmed a day ago. A lower one counts, too, and where none is known it was that of now."""
        now = 1_800_000_000.0
        for kept_for, retention, nothing in (
            (DAY, 7 * DAY, False),
            (7 * DAY, 7 * DAY, True),
            (7 * DAY, DAY, False),
            (0.0, 7 * DAY, True),
        ):
            moment = as_if_kept(now - 2 * DAY, kept_for, retention)
            assert lost_nothing(moment, now, retention) is nothing, (kept_for, retention)
        assert lost_nothing(as_if_kept(now - DAY / 2, DAY, 7 * DAY), now, 7 * DAY)
