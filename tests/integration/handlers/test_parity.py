"""Every way to run a Lambda function answers for the rows of docs/lambda-parity.md: its answers, its errors, its ends,
what it prints and what it knows of its call."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec import Raw
from structlog.testing import capture_logs

from consumer.domain.outcome import HandlerCall, Outcome
from tests.integration.handlers.parity_cases import ANSWERS, ENDS, RAISED, RAISES, VALUES, Answer, End, Raise, Value
from tests.integration.handlers.parity_kinds import AWSLAMBDARIC, HTTP, OF_PYTHON, Subject, params, subject_of
from tests.integration.handlers.support import SOURCE_ARN, alive, call, eventually, invoke, number, record

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = 20.0  # seconds; nothing here takes that long


@pytest_asyncio.fixture(params=params(), scope="module", loop_scope="module")
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with subject_of(request.param) as found:
        yield found


def asking(*what: str, timeout: float = LONG, **attributes: str) -> HandlerCall:
    """A call with one record for each of ``what``; each has the ``attributes``, too."""
    records = []
    for index, do in enumerate(what):
        one = record(index)
        texts = {"pk": f"k{index}", "do": do, **attributes}
        image = Raw(msgspec.json.encode({name: {"S": text} for name, text in texts.items()}))
        records.append(msgspec.structs.replace(one, dynamodb=msgspec.structs.replace(one.dynamodb, NewImage=image)))
    one_call = call(timeout=timeout, request_id=str(uuid.uuid4()))
    return msgspec.structs.replace(one_call, records=tuple(records))


async def asked(subject: Subject, *what: str, report: bool | None = True, **more: Any) -> Outcome:
    return await invoke(await subject.handler(report), asking(*what, **more))


def meaning(outcome: Outcome) -> str:
    """The kind, or the type of the fault when the whole batch has failed."""
    return outcome.fault.type if outcome.kind == "failed" and outcome.fault else outcome.kind


def replaced(logs: Any) -> int:
    return sum(entry["event"] == "handler.worker_replaced" for entry in logs)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.json)
async def test_answers(subject: Subject, answer: Answer) -> None:
    with capture_logs() as logs:
        for report, means in ((True, answer.true), (None, answer.none), (False, answer.false)):
            outcome = await asked(subject, "answer", "", "", "", answer=answer.json, report=report)
            assert meaning(outcome) == means, report
            assert outcome.failed == (tuple(map(number, answer.failed)) if means == "partial" else ())
            if means == "partial":
                assert outcome.exact is answer.exact
            if outcome.fault is not None:
                assert outcome.fault.kind == "bad_response"
    assert replaced(logs) == 0


async def test_records_that_a_function_reports(subject: Subject) -> None:
    """By what it sees in them."""
    outcome = await asked(subject, "", "partial", "", "partial")
    assert (outcome.kind, outcome.failed, outcome.exact) == ("partial", (number(1), number(3)), True)
    assert (await asked(subject, "", "")).kind == "ok"


@pytest.mark.parametrize("end", ENDS, ids=str)
async def test_errors_and_ends(subject: Subject, end: End, tmp_path: Path) -> None:
    """All are failures of the whole batch, and the next call is as any other."""
    kind = subject.kind
    if kind.name in end.not_for:
        pytest.skip(end.not_for[kind.name])
    expected = end.differs.get(kind.name, end)
    child = tmp_path / "child"
    assert (await asked(subject, "")).kind == "ok"  # a process that has been started is not part of the time limit
    timeout = 0.5 if end.fault[0] == "timeout" else LONG
    with capture_logs() as logs:
        outcome = await asked(subject, end.do, "", timeout=timeout, file=str(child))
        assert (outcome.kind, outcome.failed) == ("failed", ())
        fault = outcome.fault
        assert fault is not None
        type_ = kind.raised if expected.fault[1] == RAISED else expected.fault[1]
        assert (fault.kind, fault.type) == (expected.fault[0], type_)
        assert re.search(expected.message, fault.message)
        if end.do == "fail":
            assert kind.place in " ".join(fault.stack[:2]) if kind.place else fault.stack == ()
        if child.exists():
            await eventually(lambda: not alive(int(child.read_text())))
        assert child.exists() is (end.do == "child")
        assert (await asked(subject, "")).kind == "ok"
    assert replaced(logs) == (expected.dies and kind is not HTTP)


async def test_what_it_prints(subject: Subject) -> None:
    """Line by line, with shard and request id."""
    if subject.kind is HTTP:
        pytest.skip("what a server prints is not the daemon's")
    handler = await subject.handler()
    with capture_logs() as logs:
        for _ in range(2):
            one = asking("print")
            assert (await invoke(handler, one)).kind == "ok"
            said = {entry["line"]: entry for entry in logs if entry["event"] == "handler.output"}
            assert (said["to stdout"]["stream"], said["to stderr"]["stream"]) == ("stdout", "stderr")
            assert {said[line]["request_id"] for line in ("to stdout", "to stderr")} == {one.request_id}
            assert any(one.request_id in line for line in said), "the one that names the call"
            assert said["to stdout"]["shard_id"] == "shardId-1"
            logs.clear()


async def test_what_it_knows_of_the_call(subject: Subject, tmp_path: Path) -> None:
    """Request id, remaining time and the function's ARN, for every call anew."""
    handler = await subject.handler()
    for timeout in (7.0, 90.0):
        one = asking("context", timeout=timeout, file=str(tmp_path / "known"))
        assert (await invoke(handler, one)).kind == "ok"
        request_id, remaining, arn = json.loads((tmp_path / "known").read_text())
        assert request_id == one.request_id
        assert 1000 * (timeout - 5) < remaining <= 1000 * timeout
        region, account = SOURCE_ARN.split(":")[3:5]
        ours = f"arn:aws:lambda:{region}:{account}:function:orders-projector"
        assert arn == ("" if subject.kind is HTTP else ours), "a server is told of no ARN: it has one of its own"


@pytest.mark.parametrize("subject", params(OF_PYTHON), indirect=True)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: value.code)
async def test_values_of_python(subject: Subject, value: Value) -> None:
    """What is no JSON in Python, or only just."""
    outcome = await asked(subject, "python", code=value.code)
    means = (value.by_awslambdaric if subject.kind is AWSLAMBDARIC else None) or value.means
    assert meaning(outcome) == means
    if outcome.fault is not None:  # what never became an answer is an error of the function: "Unhandled"
        assert outcome.fault.kind == ("bad_response" if means == "BadResponse" else "raised")
    assert (await asked(subject, "")).kind == "ok"


@pytest.mark.parametrize("subject", params(OF_PYTHON), indirect=True)
@pytest.mark.parametrize("raised", RAISES, ids=lambda raised: raised.code)
async def test_whatever_python_raises(subject: Subject, raised: Raise) -> None:
    """With its type, message and place; the process lives on, but where AWS's client lets it end."""
    ends = raised.ends_awslambdaric if subject.kind is AWSLAMBDARIC else ""
    with capture_logs() as logs:
        outcome = await asked(subject, "python", code=raised.code)
        fault = outcome.fault
        assert fault is not None
        if ends:
            assert (fault.kind, fault.type) == ("crashed", "Runtime.ExitError")
            assert ends in fault.message
        else:
            assert (outcome.kind, fault.kind, fault.type) == ("failed", "raised", raised.type)
            assert raised.message in fault.message
            assert "python_function.py" in fault.stack[0]
            assert "in handler" in fault.stack[0]
            assert len(fault.stack) <= 45
        assert (await asked(subject, "")).kind == "ok"
    assert replaced(logs) == bool(ends)
