"""``/status.json``: what scripts and the page get."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from consumer.operate.error_groups import ErrorReport
from consumer.operate.history import RATES, STEP, History, Past
from consumer.operate.price_list import list_prices
from consumer.operate.status import ShardStatus, Status, StatusBoard
from consumer.operate.status_json import StatusJson, status_json
from tests.support import status_samples as samples

NOW = 1_764_600_000.0
HOSTILE = "<script>alert('x')</script>\"&\n\x1b[31m\ud800"


def parsed(board: StatusBoard) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    found: dict[str, Any] = json.loads(status_json(board), parse_constant=refuse)
    return found


def test_before_the_first_snapshot() -> None:
    body = parsed(StatusBoard())
    assert (body["ready"], body["severity"]) == (False, "info")
    assert body["headline"] == "Starting: the configuration is not loaded yet."
    assert "shards" not in body


def test_an_incident_is_told_worst_first() -> None:
    body = parsed(samples.incident(NOW))
    assert body["headline"].startswith("1 shard stopped: records were trimmed")
    assert [problem["code"] for problem in body["problems"]] == [
        "halted",
        "letters_refused",
        "breaker",
        "free_leases",
        "stuck_keys",
        "lag",
        "parked_keys",
        "versions",
    ]
    assert body["keys"][0] == {
        "digest": "Uo4rxqPEf6KpR2Qa",
        "state": "retrying",
        "shard_id": samples.shard_id(303),
        "since": NOW - 1_130,
    }
    assert body["fleet"][2]["leaving"] is True
    refused = next(group for group in body["errors"] if group["event"] == "dead_letter.refused")
    assert (refused["count"], refused["type"], refused["shards"]) == (290, "PermissionDenied", 1)
    assert body["changed_settings"]["batch.batch_size"] == "250"
    assert body["history"]["calls_per_hour"]["GetRecords"] > 17_000


def test_what_the_calls_cost_a_month_at_their_present_rate() -> None:
    """An hour of 17,000 reads and more of a stream: 730 of them at $0.02 a hundred thousand."""
    found = parsed(samples.incident(NOW))
    costs, calls = found["call_costs"], found["history"]["calls_per_hour"]
    assert costs["by_operation"]["GetRecords"] == pytest.approx(calls["GetRecords"] * 730 * 0.02 / 1e5, abs=0.01)
    assert costs["by_operation"].keys() == {"GetRecords", "UpdateItem", "Query", "GetItem"}
    assert costs["dollars_a_month"] == pytest.approx(sum(costs["by_operation"].values()), abs=0.03)
    assert (costs["prices_of"], costs["prices_as_of"]) == ("us-east-1", list_prices().as_of)


def test_reading_of_a_kinesis_stream_is_not_paid_by_the_call() -> None:
    arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders-changes"
    costs = parsed(samples.board(samples.status(NOW, (), stream_arn=arn)))["call_costs"]
    assert costs["by_operation"].keys() == {"UpdateItem", "Query", "GetItem"}


def test_before_anything_was_measured_nothing_is_said_to_cost_nothing() -> None:
    assert parsed(samples.board(samples.status(NOW, (), history=Past())))["call_costs"]["dollars_a_month"] is None


@pytest.mark.parametrize(("minutes", "is_priced"), [(1, False), (4.8, False), (5, True)])
def test_a_start_is_not_taken_for_a_month(minutes: float, is_priced: bool) -> None:
    """Leases of a thousand shards are made once: $164 a month, had they been counted for ten seconds."""
    history = History()
    history.add(0.0, dict.fromkeys(RATES, 0.0), {})
    for step in range(1, round(minutes * 60 / STEP) + 1):
        history.add(step * STEP, dict.fromkeys(RATES, 0.0), {"PutItem": 1000.0})
    costs = parsed(samples.board(samples.status(NOW, (), history=history.past)))["call_costs"]
    month = pytest.approx(12_000 * 730 * 0.625 / 1e6, abs=0.01)
    assert costs["dollars_a_month"] == (month if is_priced else None)
    assert costs["by_operation"] == ({"PutItem": month} if is_priced else {})


def test_a_count_of_letters_that_is_not_known_is_null() -> None:
    found = [parsed(samples.board(samples.status(NOW, (), dead_letter_backlog=n))) for n in (None, 0, 7)]
    assert [one["dead_letter_backlog"] for one in found] == [None, 0, 7]


def test_no_data_of_items_is_in_it_unless_asked_for() -> None:
    assert b"customer-17" not in status_json(samples.incident(NOW))
    allowed = StatusBoard(show_errors=True)
    allowed.error(ErrorReport("dead_letter.sent", "ValueError", text="customer-17 has no address"))
    assert b"customer-17" in status_json(allowed)


def test_numbers_are_finite_and_text_is_plain_ascii() -> None:
    shards = (
        ShardStatus(HOSTILE, HOSTILE, owner=HOSTILE, note=HOSTILE, lag=float("nan"), headroom=float("-inf")),
        ShardStatus("mine", "open", mine=True, lag=75.25, retrying_keys=0, deferred_keys=2),
    )
    hostile = Status(
        HOSTILE, HOSTILE, HOSTILE, shards=shards, totals={HOSTILE: 1}, history=Past(lag=(float("inf"), None, 1.0))
    )
    board = samples.board(hostile)
    board.error(ErrorReport(HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    board.task_died(HOSTILE, HOSTILE)
    body = parsed(board)
    assert status_json(board).isascii()
    assert body["shards"][0]["shard_id"] == HOSTILE
    assert body["history"]["lag"] == [None, None, 1.0]
    assert body["shards"][0].keys().isdisjoint({"lag", "headroom", "in_flight"}), "what is not known is left out"
    assert body["shards"][1] == {
        "shard_id": "mine",
        "state": "open",
        "owner": None,
        "mine": True,
        "epoch": 0,
        "note": "",
        "parents": [],
        "lag": 75.2,
        "retrying_keys": 0,
        "deferred_keys": 2,
    }, "what scripts ask for is always there"
    assert (body["shards"][1]["lag"], body["shards"][1]["retrying_keys"]) == (75.2, 0)
    assert body["scaling"]["lag_seconds"] == 75.2


def test_a_thousand_shards_are_small_and_quick() -> None:
    board = samples.thousand(NOW)
    assert len(status_json(board)) < 300_000
    taken = []
    for _ in range(5):
        began = time.process_time()
        status_json(board)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.02


def test_a_worker_that_owns_a_thousand_shards() -> None:
    board = samples.board(samples.status(NOW, tuple(map(samples.own, range(9_000, 10_000)))))
    assert len(status_json(board)) < 450_000


def test_what_an_autoscaler_reads() -> None:
    def scaling(lag: float, workers: int, shards: int, *, unread: float | None = None) -> dict[str, float]:
        own = tuple(samples.own(n, lag=lag) for n in range(shards))
        found = samples.status(NOW, own, workers=workers, iterator_age=lag if unread is None else unread)
        scaled: dict[str, float] = parsed(samples.board(found))["scaling"]
        return scaled

    assert scaling(0.4, 2, 6) == {
        "lag_seconds": 0.4,
        "iterator_age_seconds": 0.4,
        "open_shards": 6,
        "desired_workers": 2,
    }
    assert scaling(90.0, 2, 6)["desired_workers"] == 3
    assert scaling(90.0, 6, 6)["desired_workers"] == 6, "one more worker would have no shard"
    assert scaling(0.4, 9, 6)["desired_workers"] == 6
    assert scaling(0.0, 1, 0)["desired_workers"] == 1
    failing_key = scaling(7_200.0, 2, 6, unread=0.3)
    assert (failing_key["lag_seconds"], failing_key["iterator_age_seconds"]) == (7_200.0, 0.3)
    assert failing_key["desired_workers"] == 2, "no worker more helps a key that keeps failing"


def test_a_machine_whose_clock_differs_reports_by_the_clock_that_dates_its_answers() -> None:
    """Else a worker five minutes ahead of AWS would look as if it had been silent for five minutes."""
    board = samples.board(samples.status(NOW, (samples.own(1),), clock_ahead=300.2))
    body, _, at = StatusJson(board).encoded()
    document = json.loads(body)
    assert (at, document["updated_at"], document["clock_ahead"]) == (NOW + 300.2, NOW, 300)


def test_the_tag_changes_with_what_is_said_and_not_with_the_time() -> None:
    found = samples.status(NOW, (samples.own(1),))
    board = samples.board(found)
    document = StatusJson(board)
    body, tag, at = document.encoded()
    assert (at, json.loads(body)["updated_at"]) == (NOW, NOW)
    assert document.encoded()[0] is body, "encoded once for each change"
    board.publish(replace(found, updated_at=NOW + 1))
    later, same, at = document.encoded()
    assert (json.loads(later)["updated_at"], same, at) == (NOW + 1, tag, NOW + 1)
    board.publish(replace(found, shards=(samples.own(1, lag=9.0),)))
    assert document.encoded()[1] != tag
    tags = {document.encoded()[1]}
    for change in (
        lambda: board.error(ErrorReport("e")),
        board.stopping,
        lambda: setattr(board, "progress_age", 3.0),
        lambda: board.task_died("x", "y"),
    ):
        change()
        tags.add(document.encoded()[1])
    assert len(tags) == 5
