"""Frames, answers and environments: the pure parts of the process pool."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.domain.outcome import HandlerFault, Outcome
from consumer.handlers import frames
from consumer.handlers.environment import lambda_environment, worker_environment
from consumer.handlers.frames import Reply, Setup, Splitter
from consumer.handlers.handler_faults import crash_fault, timeout_fault
from consumer.handlers.results import lambda_outcome
from consumer.handlers.runtime import wire
from consumer.handlers.runtime.wire import FrameError

_FAULT = ("E", "text", ("line",))


def written(*replies: tuple[dict[str, Any], bytes]) -> bytes:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for reply, body in replies:
                wire.send(ours, reply, body)
        return b"".join(iter(lambda: theirs.recv(65536), b""))


def test_frames_survive_any_fragmentation() -> None:
    outcome = Outcome("failed", fault=HandlerFault("bad_response", *_FAULT))
    stream = written(
        ({"kind": "ended", "serial": 1, "outcome": msgspec.to_builtins(outcome)}, b""),
        ({"kind": "raised", "serial": 2, "fault": _FAULT}, b""),
        ({"kind": "returned", "serial": 3}, b"null"),
    )
    expected = [
        (Reply("ended", serial=1, outcome=outcome), b""),
        (Reply("raised", serial=2, fault=_FAULT), b""),
        (Reply("returned", serial=3), b"null"),
    ]
    for step in (1, 7, len(stream)):
        splitter = Splitter()
        found = [
            (frames.decode_reply(head), body)
            for start in range(0, len(stream), step)
            for head, body in splitter.feed(stream[start : start + step])
        ]
        assert found == expected


def test_sizes_are_checked_before_memory_is_taken() -> None:
    with pytest.raises(FrameError):
        list(Splitter().feed(struct.pack(">II", 10, wire.MAX_BODY + 1)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff" * 8)
        with pytest.raises(FrameError):
            wire.receive(theirs)


def test_blocking_side_and_the_end() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(frames.head_of(Setup("lambda", "app:handler", None, True), b"body") + b"body")
            setup = {"kind": "lambda", "target": "app:handler", "path": None, "report_failures": True}
            assert wire.receive(theirs) == (setup, b"body")
        assert wire.receive(theirs) is None


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
    assert not {"LAMBDA_TASK_ROOT", "TZ"} & made.keys()


def test_a_lambda_function_finds_its_folder_and_utc() -> None:
    made = lambda_environment({}, "orders", Path("/opt/fn"), "eu-west-1", "app:handler")
    assert (made["LAMBDA_TASK_ROOT"], made["TZ"], made["_HANDLER"]) == ("/opt/fn", ":UTC", "app.handler")
    quiet = ("POWERTOOLS_TRACE_DISABLED", "AWS_XRAY_SDK_ENABLED")
    assert [made[name] for name in quiet] == ["true", "false"], "LAMBDA_TASK_ROOT switches tracing on"
    own = {"LAMBDA_TASK_ROOT": "/code", "TZ": "Europe/Berlin", "AWS_XRAY_SDK_ENABLED": "true"}
    assert own.items() <= lambda_environment(own, "orders", Path("/opt/fn"), None).items()
    assert "_HANDLER" not in lambda_environment({}, "orders", Path("/opt/fn"), None), "a program has arguments"


def test_faults_are_worded_as_on_lambda() -> None:
    assert timeout_fault("r", 3).message == "RequestId: r Error: Task timed out after 3.00 seconds"
    assert crash_fault("r", 1).message == "RequestId: r Error: Runtime exited with error: exit status 1"
    assert crash_fault("r", -9).message.endswith("signal: SIGKILL (out of memory?)")
    assert crash_fault("r", -60).message.endswith("signal: 60")
