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
@pytest.mark.parametrize("report", [False, True, None])
def test_a_window_needs_its_state_in_any_case(body, report):
    assert lambda_outcome(body, {"1"}, report_failures=report, windowed=True).kind == "failed"


@pytest.mark.parametrize(
    "body", [b"OK", b"<html>thanks</html>", b'{"status":"accepted"}', b'"ok"', b"1", b"[1]", b"NaN"]
)
def test_by_default_what_names_no_failures_is_success(body):
    """A function keeps its answer, and an HTTP endpoint its text."""
    assert lambda_outcome(body, {"1"}, report_failures=None).kind == "ok"


def test_by_default_failures_that_are_named_are_failures():
    """A forgotten option loses nothing; names that make no sense fail the batch, as where they are asked for."""
    outcome = lambda_outcome(b'{"batchItemFailures":[{"itemIdentifier":"1"}]}', {"1"}, report_failures=None)
    assert (outcome.kind, outcome.failed) == ("partial", ("1",))
    for nonsense in (b'{"batchItemFailures":"x"}', b'{"batchItemFailures":[{"itemIdentifier":"2"}]}'):
        assert lambda_outcome(nonsense, {"1"}, report_failures=None).kind == "failed"


def test_the_error_of_a_text_names_the_option():
    outcome = lambda_outcome(b'"done"', {"1"}, report_failures=True)
    assert outcome.fault is not None
    assert "batch.report_batch_item_failures: false" in outcome.fault.message
