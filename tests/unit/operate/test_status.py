from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from consumer.operate.status import RECENT_ERRORS, ShardStatus, Status, StatusBoard
from consumer.operate.status_page import MAX_ROWS, status_json, status_page
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
    board.error("session.renew_failed", "UpdateItem failed: timeout")
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


def test_repeated_errors_are_counted_and_the_list_is_bounded(board: StatusBoard) -> None:
    for _ in range(5):
        board.error("dead_letter.refused", "x" * 2000, at=1.0)
    assert len(board.errors) == 1
    assert board.errors[0].count == 5
    assert len(board.errors[0].detail) < 600
    for number in range(100):
        board.error("e", str(number))
    assert len(board.errors) == RECENT_ERRORS
    assert board.errors[0].detail == "99"


def test_snapshots_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Status("a", "t", "i").table = "other"  # type: ignore[misc]  # frozen
    with pytest.raises(FrozenInstanceError):
        ShardStatus("s", "open").lag = 1  # type: ignore[misc]  # frozen


HOSTILE = "<script>alert('x')</script>\"&\n\x1b[31m\ud800"


def hostile_status() -> Status:
    shard = ShardStatus(HOSTILE, HOSTILE, owner=HOSTILE, note=HOSTILE, lag=float("nan"))
    mine = ShardStatus(
        "shardId-mine",
        "open",
        owner="me",
        mine=True,
        epoch=3,
        lag=75.25,
        in_flight=12345,
        retrying_keys=1717,
        deferred_keys=2828,
    )
    return Status(HOSTILE, HOSTILE, HOSTILE, stream_arn=HOSTILE, shards=(shard, mine), totals={HOSTILE: 1234})


def test_the_page_escapes_everything_and_loads_nothing(board: StatusBoard) -> None:
    board.publish(hostile_status())
    board.error(HOSTILE, HOSTILE)
    board.task_died(HOSTILE, HOSTILE)
    page = status_page(board).decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "src=" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "http-equiv=refresh" in page


def test_the_page_shows_what_an_operator_looks_for(board: StatusBoard) -> None:
    board.publish(hostile_status())
    page = status_page(board).decode()
    for text in (
        "this worker",
        "shardId-mine",
        "75.2s",
        "12,345",
        "1,234",
        "1,717",
        "2,828",
        "Recent errors",
        "in flight",
    ):
        assert text in page, text
    assert page.index("shardId-mine") < page.rindex("<td>&lt;script"), "own shards come first"


def test_the_page_before_the_first_snapshot(board: StatusBoard) -> None:
    assert b"Starting" in status_page(board)
    assert json.loads(status_json(board))["ready"] is False


def test_the_page_stays_small_with_many_shards(board: StatusBoard) -> None:
    shards = tuple(ShardStatus(f"shardId-{n:05}", "open") for n in range(5000))
    board.publish(Status("a", "t", "i", shards=shards))
    page = status_page(board)
    assert len(page) < 200_000
    assert f"and {5000 - MAX_ROWS} more".encode() in page
    assert len(json.loads(status_json(board))["shards"]) == 5000


def test_the_json_is_valid_json(board: StatusBoard) -> None:
    board.publish(hostile_status())
    board.error("e", HOSTILE)

    def refuse(text: str) -> None:
        raise AssertionError(text)

    body = json.loads(status_json(board), parse_constant=refuse)
    assert body["shards"][0]["lag"] is None
    assert body["shards"][1]["lag"] == 75.25
    assert (body["shards"][1]["retrying_keys"], body["shards"][1]["deferred_keys"]) == (1717, 2828)
    assert body["errors"][0]["event"] == "e"
    assert body["healthy"] is True
