"""Windows are half-open and written as Lambda writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.windows import TimeWindow, TumblingWindow, WindowState, second_text

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


@given(
    st.integers(1, 900),
    st.lists(st.floats(0, 5000), min_size=1, max_size=40).map(sorted),
    st.lists(st.integers(1, 5), min_size=40, max_size=40),
)
def test_every_record_is_in_one_window_and_windows_do_not_overlap(
    size: int, times: list[float], takes: list[int]
) -> None:
    """Whatever the batches: each record is aggregated once, in the window its time falls into."""
    window = TumblingWindow(size)
    rest, seen, closed = list(times), [], []
    for take in takes * 3:
        batch = rest[:take]
        while batch:
            count = window.leading(batch)
            if count == 0:
                assert window.open is not None
                closed.append(window.open)
                window.close()
                continue
            seen += [(window.open, created) for created in batch[:count]]
            batch, rest = batch[count:], rest[count:]
    assert [created for _, created in seen] == times
    assert all(of is not None and created in of for of, created in seen)
    assert closed == sorted(set(closed))
    assert all(of.start % size == 0 and of.end - of.start == size for of in closed)


def test_a_window_goes_on_as_the_previous_owner_left_it() -> None:
    left = WindowState(TimeWindow(60, 120), b'{"count":1}')
    window = TumblingWindow(60, left)
    assert window.durable == left
    assert window.leading([61.0, 119.0, 120.0]) == 2
    window.aggregated(b'{"count":3}')
    assert window.durable == WindowState(TimeWindow(60, 120), b'{"count":3}')
    assert window.leading([120.0]) == 0
    window.close()
    assert window.durable == WindowState()
    assert window.leading([120.0, 179.0, 180.0]) == 2
    assert window.open == TimeWindow(120, 180)


@pytest.mark.parametrize(("size", "left_over"), [(60, False), (30, True), (61, True), (0, True)])
def test_a_window_of_other_settings_is_left_over(size: int, *, left_over: bool) -> None:
    """Windows that are off (0) or of another size do not go on with it."""
    window = TumblingWindow(size, WindowState(TimeWindow(60, 120), b'{"count":1}'))
    assert window.is_left_over == left_over
    window.close()
    assert not window.is_left_over


def test_the_version_grows_with_every_change() -> None:
    window = TumblingWindow(60)
    versions = [window.version]
    window.leading([1.0])
    versions.append(window.version)
    window.leading([2.0])
    assert window.version == versions[-1], "nothing to store"
    window.aggregated(b"{}")
    versions.append(window.version)
    window.close()
    versions.append(window.version)
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("claimed", [-1.0, 0.0, 1e18, float("inf")])
def test_a_record_with_an_absurd_time_has_a_window(claimed: float) -> None:
    window = TumblingWindow(900)
    assert window.leading([claimed, claimed]) == 2
    assert window.open is not None


def test_a_window_is_over_some_time_after_its_end() -> None:
    window = TumblingWindow(60)
    assert not window.is_over(1e9, 30)
    window.leading([61.0])
    assert not window.is_over(149.9, 30)
    assert window.is_over(150.0, 30)
