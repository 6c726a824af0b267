"""What a handler call is and what came of it, with Lambda's rules for answers as a pure function."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from .events import batch_event_json
from .hidden_values import HiddenValues
from .stream_record import StreamRecord
from .windows import WindowCall


def _for_ever() -> float:
    return math.inf


class HandlerCall(msgspec.Struct, frozen=True):
    """One invocation. ``attempt`` is 1 for the first call of a batch; ``timeout`` in seconds; ``window`` is None
    without tumbling windows; ``redrive``: the records come out of the dead letters. ``hidden``: values of the records
    that nothing said about the call may show.

    ``may_start_for`` says for how many seconds from now user code may still start. Whoever passes the call on, to
    another turn of the loop, another process or a new connection, asks it there again: between two of them a machine
    may sleep and a loop be blocked, and the next owner of the shard does not wait for that. What comes too late ends
    as ``TOO_LATE``."""

    records: Sequence[StreamRecord]
    request_id: str
    attempt: int
    application: str
    shard_id: str
    lease_epoch: int
    timeout: float
    window: WindowCall | None = None
    may_start_for: Callable[[], float] = _for_ever
    redrive: bool = False
    hidden: HiddenValues | None = None

    @property
    def source_arn(self) -> str:
        """The stream that the records came from."""
        if self.window is not None:
            return self.window.stream_arn
        return self.records[0].event_source_arn if self.records else ""

    def event(self) -> bytes:
        """The Lambda event as JSON."""
        fields = self.window.event_fields(self.shard_id) if self.window is not None else b""
        return batch_event_json(self.records, fields)

    def shown(self, text: str) -> str:
        """What user code has said during the call, without the hidden values."""
        return text if self.hidden is None else self.hidden.hide(text)

    def redacted(self, outcome: Outcome) -> Outcome:
        """The outcome with a fault that shows no hidden value."""
        fault = outcome.fault
        if self.hidden is None or fault is None:
            return outcome
        stack = tuple(self.shown(line) for line in fault.stack)
        shown = HandlerFault(fault.kind, self.shown(fault.type), self.shown(fault.message), stack)
        return msgspec.structs.replace(outcome, fault=shown)


@dataclass(frozen=True, slots=True)
class HandlerFault:
    """Why a call failed. ``kind``: raised (also: returned what cannot be sent), timeout, crashed (process died),
    bad_response (an answer that makes no sense), reported (the handler named failed records), cancelled."""

    kind: Literal["raised", "timeout", "crashed", "bad_response", "reported", "cancelled"]
    type: str
    message: str
    stack: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """``ok``: all settled. ``partial``: ``failed`` (sequence numbers, all from the batch) and later are not.
    ``exact``: every record that is not named was handled; a Lambda function may also have stopped at the first failure.
    ``failed``: none is. ``not_invoked``: user code never ran (no worker, throttle): no retry is spent.
    ``state`` is what a tumbling window's handler returned, as JSON; ``answer`` all that a Lambda function or an
    endpoint answered, as it came."""

    kind: Literal["ok", "partial", "failed", "not_invoked"]
    failed: tuple[str, ...] = ()
    fault: HandlerFault | None = None
    seconds: float = 0.0
    state: bytes | None = None
    exact: bool = True
    answer: bytes | None = None


OK = Outcome("ok")
TOO_LATE = Outcome(
    "not_invoked",
    fault=HandlerFault(
        "cancelled", "TooLate", "user code did not start: by then the shard could have had another owner already"
    ),
)


def bad_response(message: str) -> Outcome:
    return Outcome("failed", fault=HandlerFault("bad_response", "BadResponse", message))


def _named(identifier: object) -> str:
    return repr(identifier[:64]) if isinstance(identifier, str) else f"something of type {type(identifier).__name__}"


def from_lambda_response(response: Any, batch: Collection[str], *, report_failures: bool | None) -> Outcome:
    """Lambda's ReportBatchItemFailures rules, as recorded on real AWS (reference: lambda-semantics 1.5).

    ``response`` is the decoded JSON the function returned, ``batch`` the sequence numbers it was given.

    * None, ``{}``, ``[]``, ``""`` and an empty or null ``batchItemFailures`` are success;
    * it names the records that failed (``exact`` says whether all others were handled, which Lambda never assumes);
    * an item with a missing, null, empty, non-text or unknown identifier fails the whole batch;
    * without ReportBatchItemFailures (``report_failures`` is False) the response is ignored;
    * None, which Lambda does not have, takes a function as it is: failures that it names are failures, and whatever
      else it returns is success. No failure is lost by a forgotten option, and no sentence fails a batch for ever.

    What Lambda makes of other JSON is neither documented nor recorded. An object about something else is success here:
    functions return such things without meaning a failure. A number or a text cannot be meant as an answer to this
    question, where it was asked: it fails the batch, because a retry loses nothing.
    """
    if report_failures is False or response is None or response in ({}, [], ""):
        return OK
    if not isinstance(response, dict):
        if report_failures is None:
            return OK
        found = f"the handler returned {type(response).__name__}, not an object or null"
        hint = "if it does not report failures, set batch.report_batch_item_failures: false (Lambda's default)"
        return bad_response(f"{found}; {hint}")
    failures = response.get("batchItemFailures")
    if failures is None or failures == []:
        return OK
    if not isinstance(failures, list):
        return bad_response(f"batchItemFailures is {type(failures).__name__}, not a list")
    identifiers: list[str] = []
    for item in failures:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        if not isinstance(identifier, str) or identifier not in batch:
            return bad_response(f"batchItemFailures names {_named(identifier)}, which is not in the batch")
        identifiers.append(identifier)
    # One name alone: the function may have stopped there, as in AWS's own examples, and left the rest for a retry.
    return Outcome("partial", failed=tuple(identifiers), exact=len(set(identifiers)) > 1)


def from_window_response(response: Any, batch: Collection[str], *, report_failures: bool | None) -> Outcome:
    """The rules for a window's invocation: besides what holds for every response it must carry ``state``, an object;
    without it the invocation has failed (AWS documentation, "tumbling windows")."""
    state = response.get("state") if isinstance(response, dict) else None
    if not isinstance(state, dict):
        return bad_response("the response has no state object, which every invocation of a tumbling window must return")
    try:
        text = json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:  # 1e999 reads as infinity, and every later event of the window would be no JSON
        return bad_response("the state holds a number that no JSON can carry on: it is too large")
    return msgspec.structs.replace(from_lambda_response(response, batch, report_failures=report_failures), state=text)


def from_python_result(result: Any, batch: Collection[str], *, report_failures: bool) -> Outcome:
    """A ``python`` handler returns None, or an iterable of the records (or their sequence numbers) that failed.

    A dict is read by Lambda's rules, so that a Lambda-style function also works. Anything else fails the batch.
    """
    if result is None:
        return OK
    if isinstance(result, dict):
        return from_lambda_response(result, batch, report_failures=report_failures)
    if not isinstance(result, list | tuple | set | frozenset):
        return bad_response(f"the handler returned {type(result).__name__}, not None or the failed records")
    identifiers: list[str] = []
    for item in result:
        identifier = item.sequence_number if isinstance(item, StreamRecord) else item
        if not isinstance(identifier, str) or identifier not in batch:
            return bad_response(f"the handler returned {_named(identifier)}, which is not a record of the batch")
        identifiers.append(identifier)
    if not identifiers:
        return OK
    return Outcome("partial", failed=tuple(identifiers)) if report_failures else OK
