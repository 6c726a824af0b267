"""Which of two readings of a lease row says what is: the one that was asked for later, whenever it was answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from consumer.domain.lease import LeaseRow
from consumer.worker.fleet.lease_memory import LeaseMemory

OPEN, DONE = (LeaseRow("s1", owner="w", epoch=3, state=state) for state in ("open", "done"))


def memory(now: list[float]) -> LeaseMemory:
    clock = SimpleNamespace(monotonic=lambda: now[0])
    context: Any = SimpleNamespace(
        incarnation="me/1/x/10s",
        ports=SimpleNamespace(store=None, clock=clock),
        stream=SimpleNamespace(label="label"),
        settings=SimpleNamespace(leases=SimpleNamespace(duration=10.0)),
    )
    return LeaseMemory(context, lambda: None)


def test_a_row_that_was_read_counts_from_when_it_was_asked_for() -> None:
    """Its answer is on its way while its shard ends, and while all rows are asked for: those say that it is done."""
    now = [1.0]
    found = memory(now)
    now[0] = 3.0
    found.note(OPEN, asked_at=1.0)
    found.observe([DONE], asked_at=2.0)
    assert found.rows["s1"].state == found.known["s1"].state == "done"


def test_a_row_that_was_read_later_wins_over_all_rows() -> None:
    now = [1.0]
    found = memory(now)
    now[0] = 3.0
    found.note(DONE, asked_at=2.0)
    found.observe([OPEN], asked_at=1.0)
    assert found.rows["s1"].state == "done"
    found.observe([OPEN], asked_at=2.5)
    assert found.rows["s1"].state == "open"


def test_of_two_readings_of_one_row_the_later_one_counts() -> None:
    now = [5.0]
    found = memory(now)
    found.note(DONE, asked_at=2.0)
    found.note(OPEN, asked_at=1.0)
    assert found.rows["s1"].state == "done"
