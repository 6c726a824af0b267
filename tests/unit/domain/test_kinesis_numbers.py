"""Numbers of the books: one for each sub-record, in the order of the shard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_numbers import book_number, service_number
from consumer.domain.kinesis_records import NO_SUB, identifier
from tests.support.kinesis_records import change_record, data_record

NUMBERS = st.integers(1, 10**129 - 1)  # the most digits that the service's model allows
PLACES = st.integers(0, 10**7 - 1)


@given(NUMBERS, PLACES)
def test_there_and_back(number: int, place: int) -> None:
    assert service_number(book_number(str(number), place)) == (str(number), place)


@given(st.lists(st.tuples(NUMBERS, PLACES), min_size=2, max_size=2))
def test_the_order_is_that_of_the_shard(pair: list[tuple[int, int]]) -> None:
    """By number, then by place, also where one number has more digits than the other."""
    left, right = (int(book_number(str(number), place)) for number, place in pair)
    assert (left < right, left == right) == (pair[0] < pair[1], pair[0] == pair[1])


def test_a_record_that_is_not_aggregated_is_the_first_of_its_number() -> None:
    assert book_number("49") == book_number("49", 0) == "490000000"
    assert int(book_number("49", 9_999_999)) < int(book_number("50"))


@pytest.mark.parametrize("place", [-1, 10**7])
def test_there_is_no_room_for_other_places(place: int) -> None:
    with pytest.raises(ValueError, match=f"sub-sequence number {place} of 49 is out of range"):
        book_number("49", place)


@pytest.mark.parametrize("number", ["", "1", "1234567", "x" * 20, "-490000000", "49:1", "49000000.0"])
def test_what_is_no_number_of_the_books(number: str) -> None:
    with pytest.raises(ValueError, match="is not the number of a Kinesis record"):
        service_number(number)


@given(NUMBERS, st.just(NO_SUB) | PLACES)
def test_what_a_handler_sees_names_the_record(number: int, place: int) -> None:
    """The identifier of a partial answer leads to the same number of the books, for both kinds of record."""
    one = data_record(number=number, place=place)
    assert one.sequence_number == identifier(str(number), place)
    assert one.number == book_number(str(number), max(0, place))
    change = change_record()
    change.dynamodb.SequenceNumber = one.sequence_number
    assert (change.sequence_number, change.number) == (one.sequence_number, one.number)


def test_what_people_see_is_the_number_of_the_service() -> None:
    """In documents and on the status page."""
    assert KINESIS_FORMAT.shown("490000000") == "49"
    assert KINESIS_FORMAT.shown("490000012") == "49:12"
