"""Frames, answers and environments: the pure parts of the process pool."""

from __future__ import annotations

import socket
import struct

import pytest

from consumer.domain.outcome import HandlerFault, Outcome
from consumer.handlers import frames
from consumer.handlers.environment import worker_environment
from consumer.handlers.frames import FrameError, Reply, Splitter
from consumer.handlers.handler_faults import crash_fault, timeout_fault
from consumer.handlers.results import lambda_outcome


def test_frames_survive_any_fragmentation() -> None:
    outcome = Outcome("failed", fault=HandlerFault("raised", "E", "text", ("line",)))
    stream = frames.head_of(Reply("ended", serial=1, outcome=outcome))
    stream += frames.head_of(Reply("returned", serial=2), b"null") + b"null"
    for step in (1, 7, len(stream)):
        splitter = Splitter()
        found = [
            (frames.decode_reply(head), body)
            for start in range(0, len(stream), step)
            for head, body in splitter.feed(stream[start : start + step])
        ]
        assert found == [(Reply("ended", serial=1, outcome=outcome), b""), (Reply("returned", serial=2), b"null")]


def test_sizes_are_checked_before_memory_is_taken() -> None:
    with pytest.raises(FrameError):
        list(Splitter().feed(struct.pack(">II", 10, frames.MAX_BODY + 1)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff" * 8)
        with pytest.raises(FrameError):
            frames.receive(theirs)


def test_blocking_side_and_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            frames.send(ours, Reply("ready"), b"body")
            frame = frames.receive(theirs)
        assert frame is not None
        assert (frames.decode_reply(frame[0]).kind, frame[1]) == ("ready", b"body")
        assert frames.receive(theirs) is None


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"null", "ok"),
        (b"", "ok"),
        (b'{"batchItemFailures": [{"itemIdentifier": "1"}]}', "partial"),
        (b"NaN", "failed"),
        (b"{", "failed"),
        (b"\xff", "failed"),
        (b"[" * 100_000, "failed"),
    ],
)
def test_answers(body: bytes, kind: str) -> None:
    assert lambda_outcome(body, {"1"}, report_failures=True).kind == kind


def test_environment_is_lambdas_where_the_user_set_none() -> None:
    own = {"PATH": "/bin", "AWS_DEFAULT_REGION": "us-west-2"}
    made = worker_environment(own, "orders", "a.b:handler", "eu-west-1")
    assert (made["PATH"], made["_HANDLER"]) == ("/bin", "a.b.handler")
    assert made["AWS_REGION"] == made["AWS_DEFAULT_REGION"] == "us-west-2"
    assert made["AWS_LAMBDA_FUNCTION_NAME"] == "orders"
    kept = worker_environment({"AWS_LAMBDA_FUNCTION_NAME": "mine"}, "orders", "a:b", None)
    assert (kept["AWS_LAMBDA_FUNCTION_NAME"], kept["AWS_LAMBDA_LOG_GROUP_NAME"]) == ("mine", "/aws/lambda/mine")
    assert "AWS_REGION" not in worker_environment({}, "orders", "a:b", None)
    untraced = worker_environment({"POWERTOOLS_TRACE_DISABLED": ""}, "orders", "a:b", None)
    assert untraced["POWERTOOLS_TRACE_DISABLED"] == ""


def test_faults_are_worded_as_on_lambda() -> None:
    assert timeout_fault("r", 3).message == "RequestId: r Error: Task timed out after 3.00 seconds"
    assert crash_fault("r", 1).message == "RequestId: r Error: Runtime exited with error: exit status 1"
    assert crash_fault("r", -9).message.endswith("signal: SIGKILL (out of memory?)")
    assert crash_fault("r", -60).message.endswith("signal: 60")
