from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from consumer.operate.error_groups import MOST_GROUPS, ErrorReport
from consumer.operate.status import ShardStatus, Status, StatusBoard
from consumer.worker.control_thread import Watchdog


@pytest.fixture
def board() -> StatusBoard:
    return StatusBoard()


class MainLoop:
    """The progress that a watchdog sees; ``tick`` is one second in which the main loop does something or hangs."""

    def __init__(self, board: StatusBoard, wedged_after: float) -> None:
        self.beats = 0
        self.watchdog = Watchdog(lambda: self.beats, board, wedged_after)
        self.tick()

    def tick(self, hangs: bool = False) -> bool:
        self.beats += not hangs
        return self.watchdog.tick()


def test_health_fails_only_after_a_stall(board: StatusBoard) -> None:
    loop = MainLoop(board, 20)
    assert board.health() == (True, "ok")
    assert not any(loop.tick(hangs=True) for _ in range(19))
    assert (board.health(), board.progress_age) == ((True, "ok"), 19)
    loop.tick(hangs=True)
    assert board.health() == (False, "wedged: no progress for 20.0s (limit 20s)")
    assert loop.watchdog.wedged
    loop.tick()
    assert board.health() == (True, "ok")
    assert (loop.watchdog.wedged, board.progress_age) == (False, 0)


def test_the_process_ends_a_tick_after_it_was_seen_to_be_wedged(board: StatusBoard) -> None:
    loop = MainLoop(board, 20)
    assert [loop.tick(hangs=True) for _ in range(21)] == [False] * 20 + [True]


def test_a_process_that_was_frozen_is_not_wedged_when_it_wakes_up(board: StatusBoard) -> None:
    """However long it was: nothing ticked meanwhile, and a first look may come before the main loop runs again."""
    loop = MainLoop(board, 2)
    for _ in range(100):
        loop.tick(hangs=True)  # the look after the freeze
        assert board.health() == (True, "ok")
        loop.tick()


def test_health_names_the_task_that_died_first(board: StatusBoard) -> None:
    board.task_died("coordinator", "KeyError: 'x'")
    board.task_died("discovery", "cancelled")
    assert board.health() == (False, "task coordinator died: KeyError: 'x'")


def test_errors_alone_are_not_illness(board: StatusBoard) -> None:
    board.error(ErrorReport("session.renew_failed", "Timeout"))
    assert board.health()[0]


def test_readiness_names_what_is_missing(board: StatusBoard) -> None:
    assert board.readiness() == (False, "the configuration is not loaded yet")
    board.reached("config")
    board.reached("first_plan")
    assert board.readiness() == (False, "the lease table was not reached yet")
    assert not board.readiness()[0]
    board.reached("lease_table")
    assert board.readiness() == (False, "no shard was read yet")
    board.blocked = "no shard can be read: denied"
    assert board.readiness() == (False, "no shard can be read: denied")
    board.blocked = ""
    board.reached("first_read")
    assert board.readiness() == (True, "ready")
    board.blocked = "this session has ended"
    assert board.readiness() == (False, "this session has ended")
    assert board.health()[0], "a restart would not help"
    board.blocked = ""
    assert board.readiness() == (True, "ready")
    board.stopping()
    assert board.readiness() == (False, "stopping")
    assert board.health()[0]


def test_errors_are_counted_by_kind_and_the_list_is_bounded(board: StatusBoard) -> None:
    for number in range(5):
        board.error(ErrorReport("dead_letter.refused", "Throttled", shard_id=f"s{number % 2}"), at=10.0 + number)
    board.error(ErrorReport("dead_letter.refused", "PermissionDenied", "app.py:3", "s9"), at=20.0)
    newest, oldest = board.errors
    assert (oldest.count, oldest.first, oldest.last, oldest.shards, oldest.shard_id) == (5, 10.0, 14.0, 2, "s0")
    assert (newest.type, newest.count, newest.place) == ("PermissionDenied", 1, "app.py:3")
    for number in range(100):
        board.error(ErrorReport(f"e{number}", "x" * 2000))
    assert len(board.errors) == MOST_GROUPS
    assert board.errors[0].event == "e99"
    assert len(board.errors[0].type) < 200


def test_texts_of_errors_are_kept_only_where_that_is_allowed() -> None:
    for allowed, text in ((False, ""), (True, "customer-17")):
        board = StatusBoard(show_errors=allowed)
        board.error(ErrorReport("batch.failed", "ValueError", text="customer-17"))
        assert board.errors[0].text == text


def test_snapshots_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Status("a", "t", "i").table = "other"  # type: ignore[misc]  # frozen
    with pytest.raises(FrozenInstanceError):
        ShardStatus("s", "open").lag = 1  # type: ignore[misc]  # frozen
