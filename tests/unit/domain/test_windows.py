"""Windows are half-open and written as Lambda writes them."""

from __future__ import annotations

import pytest

from consumer.domain.windows import TimeWindow, second_text

START = 1_789_654_270  # 2026-09-17T14:11:10Z


def test_the_start_belongs_to_a_window_and_the_end_to_the_next() -> None:
    window = TimeWindow(START, START + 30)
    assert START in window
    assert START + 29.999 in window
    assert START + 30 not in window
    assert START - 0.001 not in window
    assert START + 30 in TimeWindow(START + 30, START + 60)


def test_it_is_written_in_whole_seconds_of_utc() -> None:
    assert TimeWindow(START, START + 30).text == {"start": "2026-09-17T14:11:10Z", "end": "2026-09-17T14:11:40Z"}
    assert second_text(START + 0.999) == "2026-09-17T14:11:10Z"


@pytest.mark.parametrize(("start", "end"), [(10, 10), (11, 10), (-1, 10), (0, 10**12)])
def test_an_empty_or_impossible_window_is_an_error(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no window"):
        TimeWindow(start, end)


def test_windows_sort_by_their_start() -> None:
    later, earlier = TimeWindow(START + 30, START + 60), TimeWindow(START, START + 30)
    assert sorted([later, earlier]) == [earlier, later]


@pytest.mark.parametrize(("moment", "text"), [(-5.0, "1970-01-01T00:00:00Z"), (1e18, "9999-12-31T23:59:59Z")])
def test_a_time_no_calendar_has_is_written_as_the_nearest_one(moment: float, text: str) -> None:
    assert second_text(moment) == text
