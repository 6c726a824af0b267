"""What the body of an answer means, as text."""

import pytest

from consumer.handlers.results import lambda_outcome

# An HTTP endpoint answers what it likes, and three of ten public functions return a sentence.
BODIES = [
    *(b"OK", b"<html>thanks</html>", b'{"status":"accepted"}', b'"ok"', b"1", b"[1]", b"NaN", b"\xff", b"[" * 100_000),
    b'{"batchItemFailures":[{"itemIdentifier":"1"}]}',
    b'{"batchItemFailures":"x"}',
]
STATE_MISSING = b"{}"


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_without_report_batch_item_failures_whatever_it_is_is_success(body):
    assert lambda_outcome(body, {"1"}, report_failures=False).kind == "ok"


@pytest.mark.parametrize("body", [b"OK", b"<html>thanks</html>", b'"ok"', b"1"])
def test_with_it_what_cannot_be_an_answer_to_the_question_fails(body):
    assert lambda_outcome(body, {"1"}, report_failures=True).kind == "failed"


@pytest.mark.parametrize("body", [b"OK", STATE_MISSING])
def test_a_window_needs_its_state_in_any_case(body):
    assert lambda_outcome(body, {"1"}, report_failures=False, windowed=True).kind == "failed"
