"""How often one worker of many reads all rows."""

from __future__ import annotations

import pytest

from consumer.domain.bulletin import MOST_CHANGES
from consumer.domain.lease import MOST_FAILING, SessionRow
from consumer.domain.reading_pace import (
    CHANGE_BYTES,
    LEASE_BYTES,
    MOST_SINGLE_ROWS,
    POST_BUDGET,
    POST_BYTES,
    READ_BUDGET,
    REGULAR_ROUNDS,
    UNIT_BYTES,
    Place,
    PostAllowance,
    ReadingPace,
    between_readings_of_sessions,
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


@pytest.mark.parametrize("workers", [1, 2, 10])
def test_a_small_fleet_reads_posts_as_soon_as_there_are_some(workers: int) -> None:
    for unread, changes in ((1, 1), (3, 40), (3, 300)):
        assert PostAllowance(0.0).portion(unread, changes, workers, 0.25) == unread


LIGHT, HEAVY = 150, POST_BYTES + CHANGE_BYTES * MOST_CHANGES


@pytest.mark.parametrize("workers", [50, 200, 1000])
@pytest.mark.parametrize(
    ("sizes", "every_second", "most"),
    [
        ([LIGHT], 200, 1.2),
        ([2_000], 50, 1.2),
        ([HEAVY], 20, 1.2),
        ([HEAVY] * 50 + [LIGHT] * 500, 100, 2.5),  # each time the heavy ones come, one portion is more than it seems
    ],
    ids=["light ones", "middling ones", "heavy ones", "heavy ones and light ones"],
)
def test_what_a_fleet_spends_on_posts_is_bounded(
    workers: int, sizes: list[int], every_second: int, most: float
) -> None:
    """In a burst that lasts: ``most`` times the budget in every ten seconds, if all workers do the same at the same
    time, and about the budget in the long run."""
    seconds, first, allowance, units = 600, 0, PostAllowance(0.0), dict[int, float]()
    posts = sizes * (seconds * every_second // len(sizes) + 1)
    for quarter in range(4 * seconds):
        now, last = quarter / 4, every_second * (quarter + 4) // 4
        changes = sum(posts[first:last]) // CHANGE_BYTES
        if portion := allowance.portion(last - first, changes, workers, now):
            read = posts[first : first + portion]
            allowance.read(read, workers)
            first += portion
            units[int(now)] = units.get(int(now), 0.0) + workers * max(1.0, sum(read) / UNIT_BYTES)
    in_ten = [sum(units.get(second + more, 0.0) for more in range(10)) / 10 for second in range(seconds)]
    assert max(in_ten) <= most * POST_BUDGET
    spent = sum(units.values()) / seconds
    assert spent <= 1.05 * POST_BUDGET
    assert spent >= 0.5 * POST_BUDGET or first >= last - every_second, "no worker wastes its part"


def test_one_post_is_read_at_last_however_heavy_it_is() -> None:
    allowance = PostAllowance(0.0)
    assert allowance.portion(9, 9 * MOST_CHANGES, 200, 0.5) == 0
    assert allowance.portion(9, 9 * MOST_CHANGES, 200, 2.0) > 0
    assert PostAllowance(0.0).portion(500, 500 * MOST_CHANGES, 5000, 60.0) == 1


def test_a_portion_that_was_heavier_than_it_seemed_is_paid_for_by_the_next_ones() -> None:
    allowance = PostAllowance(0.0)
    assert allowance.portion(1, 1, 200, 2.1) == 1
    allowance.read([LIGHT], 200)
    portion = allowance.portion(100, 100, 200, 5.0)
    assert portion > 20, "they seem to be light"
    allowance.read([HEAVY] * portion, 200)
    assert allowance.portion(100, 100, 200, 15.0) == 0
    assert 0 < allowance.portion(100, 100, 200, 60.0) <= 6, "and so may be the next ones"


@pytest.mark.parametrize("workers", [1, 10, 200, 1000])
@pytest.mark.parametrize("failing", [(), ("shardId-00000001764000000000-deadbeef",) * MOST_FAILING])
def test_sessions_stay_within_the_budget_also_when_all_workers_name_failing_shards(
    workers: int, failing: tuple[str, ...]
) -> None:
    rows = [SessionRow(f"host-{number:04}", failing=failing) for number in range(workers)]
    row_bytes = 220 + sum(len(shard_id) + 1 for shard_id in failing)
    units = max(1.0, workers * row_bytes / UNIT_BYTES)
    assert workers * units / between_readings_of_sessions(rows) <= READ_BUDGET * 1.001


def test_without_a_session_seen_so_far_they_are_read_at_once() -> None:
    assert between_readings_of_sessions([]) == 0.0
