"""How often one worker of many reads all rows."""

from __future__ import annotations

import pytest

from consumer.domain.lease import SessionRow
from consumer.domain.reading_pace import (
    LEASE_BYTES,
    MOST_SINGLE_ROWS,
    READ_BUDGET,
    REGULAR_ROUNDS,
    UNIT_BYTES,
    Place,
    ReadingPace,
)


def fleet(workers: int, started_at: float = 0.0) -> list[SessionRow]:
    return [SessionRow(f"host-{number:04}", started_at=started_at) for number in range(workers)]


def place(workers: int, rows: int, number: int = 0) -> Place:
    return Place.of(f"host-{number:04}", fleet(workers), rows)


def readings(workers: int, rows: int, seconds: int, *, wanted: bool) -> list[float]:
    """When the workers of a fleet read in so many seconds, if each looks once a second."""
    paces = [ReadingPace(5.0, 0.0) for _ in range(workers)]
    places = [place(workers, rows, number) for number in range(workers)]
    found: list[float] = []
    for now in range(seconds):
        for number, pace in enumerate(paces):
            if wanted:
                pace.want(float(now))
            if pace.is_due(float(now), places[number]):
                pace.has_read(float(now))
                found.append(float(now))
    return found


@pytest.mark.parametrize(("workers", "rows"), [(1, 0), (2, 10), (5, 1000), (20, 200)])
def test_small_fleets_read_at_once_and_as_often_as_usual(workers: int, rows: int) -> None:
    for number in range(workers):
        pace, mine = ReadingPace(5.0, 100.0), place(workers, rows, number)
        assert pace.is_due(101.0, mine)
        pace.has_read(101.0)
        assert not pace.is_due(105.9, mine)
        assert pace.is_due(106.0, mine)
        pace.want(103.0)
        assert pace.is_due(105.0, mine), "soon after it is wanted"


@pytest.mark.parametrize("wanted", [False, True], ids=["at rest", "with something new all the time"])
@pytest.mark.parametrize(("workers", "rows"), [(50, 1000), (200, 1000)])
def test_a_fleet_stays_within_its_budget(workers: int, rows: int, *, wanted: bool) -> None:
    """In every ten seconds, the start included; and each worker gets its turn."""
    seconds = int(2.5 * REGULAR_ROUNDS * place(workers, rows).round)
    units = max(1.0, rows * LEASE_BYTES / UNIT_BYTES)
    found = readings(workers, rows, seconds, wanted=wanted)
    for start in range(0, seconds - 10, 5):
        spent = units * sum(start <= when < start + 10 for when in found) / 10
        assert spent < 1.4 * READ_BUDGET, f"{spent:.0f} units a second at {start}"
    assert len(found) >= 2 * workers


def test_one_worker_that_joins_a_large_fleet_reads_at_once() -> None:
    """Those that started long ago are not in its way."""
    live = [*fleet(200, started_at=1000.0), SessionRow("zzz", started_at=2000.0)]
    mine = Place.of("zzz", live, 5000)
    assert (mine.rank, mine.rank_of_new) == (200, 0)
    assert ReadingPace(5.0, 0.0).is_due(0.0, mine)
    assert Place.of("host-0007", live, 5000).rank_of_new == 7


def test_single_rows_are_few_where_workers_are_many() -> None:
    assert [place(workers, 10).single_rows for workers in (1, 3, 30, 200, 1000)] == [MOST_SINGLE_ROWS, 50, 5, 1, 1]


def test_before_the_first_reading_the_last_one_is_long_ago() -> None:
    pace = ReadingPace(5.0, 0.0)
    assert pace.read_at == float("-inf")
    pace.has_read(7.0)
    assert pace.read_at == 7.0
