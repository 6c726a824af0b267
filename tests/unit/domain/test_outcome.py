"""What handlers may return, as tables."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest

from consumer.domain.outcome import (
    OK,
    Outcome,
    bad_response,
    from_lambda_response,
    from_python_result,
    from_window_response,
)
from tests.unit.domain.support import record, records

BATCH = frozenset({"99", "100", "101"})
HUGE = 10**5000


def items(*identifiers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


def is_bad(outcome: Outcome) -> bool:
    return outcome.kind == "failed" and outcome.fault is not None and outcome.fault.kind == "bad_response"


@pytest.mark.parametrize(
    "response",
    [None, {}, [], "", {"batchItemFailures": []}, {"batchItemFailures": None}, {"statusCode": 200, "body": "done"}],
    ids=repr,
)
def test_lambda_success(response: Any) -> None:
    """Null, empty answers, an empty or null list, and objects about something else are full success."""
    assert from_lambda_response(response, BATCH, report_failures=True) == OK


@pytest.mark.parametrize(
    ("response", "failed", "exact"),
    [
        (items("100"), ("100",), False),
        (items("101", "99"), ("101", "99"), True),
        (items("100", "100"), ("100", "100"), False),
        ({"batchItemFailures": [{"itemIdentifier": "99", "why": "more keys do no harm"}]}, ("99",), False),
    ],
    ids=repr,
)
def test_lambda_partial(response: Any, failed: tuple[str, ...], *, exact: bool) -> None:
    """Known identifiers, in any order and also twice, make a partial failure without a fault. A function that names
    one record may have stopped there; one that names several has gone on. The same from a dict in Python."""
    expected = Outcome("partial", failed=failed, exact=exact)
    assert from_lambda_response(response, BATCH, report_failures=True) == expected
    assert from_python_result(response, BATCH, report_failures=True) == expected


@pytest.mark.parametrize(
    "response",
    [
        items(""),
        items(None),
        items(100),
        items(True),
        items(["100"]),
        items({"itemIdentifier": "100"}),
        items(HUGE),
        items("102"),
        items("100", "102"),
        items(" 100"),
        items("\ud800"),
        {"batchItemFailures": [{"foo": "100"}]},
        {"batchItemFailures": [{"foo": None}]},
        {"batchItemFailures": [{}]},
        {"batchItemFailures": ["100"]},
        {"batchItemFailures": [None]},
        {"batchItemFailures": [["100"]]},
        {"batchItemFailures": "100"},
        {"batchItemFailures": ""},
        {"batchItemFailures": 0},
        {"batchItemFailures": False},
        {"batchItemFailures": {}},
        {"batchItemFailures": {"itemIdentifier": "100"}},
        "text",
        0,
        1.5,
        False,
        True,
        ["100"],
        [{"itemIdentifier": "100"}],
    ],
    ids=lambda response: type(response).__name__,
)
def test_lambda_bad_response(response: Any) -> None:
    """Anything that names no record of the batch, or cannot be meant as an answer, fails the whole batch."""
    assert is_bad(from_lambda_response(response, BATCH, report_failures=True))


@pytest.mark.parametrize("response", [items("99"), items("unknown"), items(1), 5, "text", {"batchItemFailures": 1}])
def test_lambda_answers_are_ignored_without_report_failures(response: Any) -> None:
    """Without ReportBatchItemFailures whatever a function returns is success."""
    assert from_lambda_response(response, BATCH, report_failures=False) == OK


@pytest.mark.parametrize("result", [None, [], (), set(), frozenset(), {}, {"batchItemFailures": []}], ids=repr)
def test_python_success(result: Any) -> None:
    """None and every empty collection are full success."""
    assert from_python_result(result, BATCH, report_failures=True) == OK


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        ([record(100)], {"100"}),
        (records(101, 99), {"99", "101"}),
        (["101", record(99)], {"99", "101"}),
        (("100",), {"100"}),
        ({"99", "100"}, {"99", "100"}),
        (frozenset({"99"}), {"99"}),
        (["99", "99"], {"99"}),
        (items("100"), {"100"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_python_partial(result: Any, failed: set[str]) -> None:
    """Records or their numbers in a list, tuple or set, or a Lambda-style dict, name what failed."""
    outcome = from_python_result(result, BATCH, report_failures=True)
    assert (outcome.kind, set(outcome.failed)) == ("partial", failed)
    assert outcome.exact is not isinstance(result, dict), "what it does not name was handled, but for Lambda's dict"


class Angry:
    def __repr__(self) -> str:
        raise RuntimeError("never look at me")

    __str__ = __repr__


@pytest.mark.parametrize(
    "result",
    [
        [record(102)],
        ["102"],
        ["99", None],
        [99],
        [HUGE],
        [Angry()],
        [[]],
        (n for n in ["99"]),
        0,
        99,
        1.5,
        True,
        False,
        "",
        "99",
        b"99",
        object(),
        Angry(),
        record(99),
        items("102"),
        {"batchItemFailures": ("99",)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_python_bad_result(result: Any) -> None:
    """Foreign records, generators, texts, numbers and objects fail the batch, and never raise here."""
    assert is_bad(from_python_result(result, BATCH, report_failures=True))


def test_a_coroutine_nobody_awaited_is_no_success() -> None:
    """An async handler that is called like a plain one must not settle its batch."""

    async def handler() -> None: ...

    coroutine = handler()
    assert is_bad(from_python_result(coroutine, BATCH, report_failures=True))
    coroutine.close()
    assert inspect.iscoroutine(coroutine)


def test_python_results_without_report_failures() -> None:
    """Named records are ignored, as Lambda does; garbage still fails the batch."""
    assert from_python_result(["99"], BATCH, report_failures=False) == OK
    assert from_python_result(items("99"), BATCH, report_failures=False) == OK
    assert is_bad(from_python_result(5, BATCH, report_failures=False))
    assert is_bad(from_python_result(["102"], BATCH, report_failures=False))


def test_messages_are_short() -> None:
    """What a handler returned appears in the fault with at most 64 characters."""
    outcome = from_lambda_response(items("x" * 10_000), BATCH, report_failures=True)
    assert outcome.fault is not None
    assert len(outcome.fault.message) < 200
    assert bad_response("why").fault is not None


@pytest.mark.parametrize(
    ("response", "kind", "state"),
    [
        ({"state": {}}, "ok", b"{}"),
        ({"state": {"n": 1, "text": "\u00e9"}}, "ok", b'{"n":1,"text":"\\u00e9"}'),
        ({"state": {"n": 1}, "batchItemFailures": []}, "ok", b'{"n":1}'),
        ({"state": {"n": 1}, "batchItemFailures": [{"itemIdentifier": "2"}]}, "partial", b'{"n":1}'),
        ({"state": {"n": 1}, "batchItemFailures": [{"itemIdentifier": "x"}]}, "failed", b'{"n":1}'),
    ],
)
def test_window_responses(response: Any, kind: str, state: bytes) -> None:
    outcome = from_window_response(response, {"1", "2"}, report_failures=True)
    assert (outcome.kind, outcome.state) == (kind, state)


def test_a_state_that_cannot_be_written_as_json_is_a_failed_call() -> None:
    """1e999 is JSON and reads as infinity, which is none: the window's next event could be read by no http handler."""
    response = json.loads('{"state": {"n": 1e999}}')
    assert from_window_response(response, {"1"}, report_failures=True).kind == "failed"


@pytest.mark.parametrize("response", [None, {}, [], "", {"batchItemFailures": []}, {"state": None}, {"state": "x"}, 5])
def test_a_window_response_without_a_state_object_is_a_failed_call(response: Any) -> None:
    """AWS: "If your function doesn't return a state property, Lambda considers this a failed invocation"."""
    assert from_window_response(response, {"1"}, report_failures=True).kind == "failed"
