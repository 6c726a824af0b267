"""How old the oldest unsettled record is, from few marks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.creation_times import RESOLUTION, CreationTimes

PAGES = st.lists(st.lists(st.floats(1.0, 30.0).map(lambda step: step - 1.0), max_size=8), max_size=8)


@given(PAGES, st.data())
def test_a_record_is_at_most_a_second_older_than_its_mark(pages: list[list[float]], data: st.DataObject) -> None:
    """Against the list of all times; positions asked for never go backwards."""
    created, now = CreationTimes(), 1000.0
    known: list[float] = []
    asked = 0
    for steps in pages:
        times = []
        for step in steps:
            now += step
            times.append(now)
        created.add(len(known), times)
        known += times
        if known:
            asked = data.draw(st.integers(asked, len(known) - 1))
            assert known[asked] - RESOLUTION < created.at(asked) <= known[asked]


def test_a_second_of_the_stream_takes_one_mark() -> None:
    """However many records it has; what lies before the oldest unsettled record is forgotten."""
    created = CreationTimes()
    for second in range(100):
        created.add(second * 1000, [1000.0 + second] * 1000)
    assert len(created) == 100
    assert created.at(98_500) == 1098.0
    assert len(created) == 2


def test_times_that_are_unknown_or_go_back_count_as_the_one_before() -> None:
    """0 is unknown. The service does not promise that times grow with the numbers."""
    created = CreationTimes()
    assert created.at(0) == 0.0
    created.add(0, [0.0, 0.0])
    assert created.at(1) == 0.0
    created.add(2, [1000.0, 0.0, 990.0, 1005.0])
    assert [created.at(position) for position in (1, 2, 3, 4, 5)] == [0.0, 1000.0, 1000.0, 1000.0, 1005.0]
    created.add(6, [1007.0, 0.0])
    assert created.at(7) == 1007.0
    created.add(8, [])
    assert created.at(8) == 1007.0


def test_a_page_that_ends_earlier_than_it_was_still_counts() -> None:
    """Its last time is no newer than the mark before, one in its middle is."""
    created = CreationTimes()
    created.add(0, [1000.0])
    created.add(1, [1010.0, 1000.0])
    assert created.at(1) == 1010.0
