"""The rows of docs/lambda-parity.md about a function's answers and ends, as data.

Where kinds rightly differ, a row says so by name in ``differs`` (another end) or ``not_for`` (with the reason).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.handlers.support import number

PROCESSES = "the server's own matter: its processes are not the daemon's"
ENCODING = "the server's own matter: what it sends is always text"


@dataclass(frozen=True)
class Answer:
    """JSON that is returned for a batch of four, and what it means by ``report_batch_item_failures``: True, left out
    (None) and False. ``failed`` are the places in the batch that it names."""

    json: str
    true: str
    none: str
    false: str = "ok"
    failed: tuple[int, ...] = ()
    exact: bool = True


def _naming(*identifiers: Any) -> str:
    return json.dumps({"batchItemFailures": [{"itemIdentifier": one} for one in identifiers]})


ANSWERS = (
    # success
    Answer("null", "ok", "ok"),
    Answer("{}", "ok", "ok"),
    Answer("[]", "ok", "ok"),
    Answer('""', "ok", "ok"),
    Answer('{"batchItemFailures": []}', "ok", "ok"),
    Answer('{ "batchItemFailures" : [ ] }', "ok", "ok"),
    Answer('{"batchItemFailures": null}', "ok", "ok"),
    Answer('{"statusCode": 200, "body": "\\u00fc\\ud83d\\ude00 ü"}', "ok", "ok"),
    # some records
    Answer(_naming(number(1)), "partial", "partial", failed=(1,), exact=False),
    Answer(_naming(number(3), number(0)), "partial", "partial", failed=(3, 0)),
    Answer(_naming(number(2), number(2)), "partial", "partial", failed=(2, 2), exact=False),
    Answer(_naming(number(2), number(1), number(2)), "partial", "partial", failed=(2, 1, 2)),
    Answer(_naming(*map(number, range(4))), "partial", "partial", failed=(0, 1, 2, 3)),
    # identifiers that make no sense
    Answer(_naming(""), "BadResponse", "BadResponse"),
    Answer(_naming(None), "BadResponse", "BadResponse"),
    Answer(_naming("1"), "BadResponse", "BadResponse"),
    Answer(_naming(int(number(1))), "BadResponse", "BadResponse"),
    Answer(_naming(number(1), number(4)), "BadResponse", "BadResponse"),
    Answer('{"batchItemFailures": [{}]}', "BadResponse", "BadResponse"),
    Answer(json.dumps({"batchItemFailures": [{"id": number(1)}]}), "BadResponse", "BadResponse"),
    Answer(json.dumps({"batchItemFailures": [number(1)]}), "BadResponse", "BadResponse"),
    Answer('{"batchItemFailures": "x"}', "BadResponse", "BadResponse"),
    Answer('{"batchItemFailures": {}}', "BadResponse", "BadResponse"),
    # what is no object
    Answer("42", "BadResponse", "ok"),
    Answer("true", "BadResponse", "ok"),
    Answer('"thanks"', "BadResponse", "ok"),
    Answer("[1]", "BadResponse", "ok"),
)


@dataclass(frozen=True)
class End:
    """How a call ends that has no answer. ``fault``: its kind and type, ``message`` a regular expression. ``dies``: the
    process is replaced. RAISED stands for the type that the kind tells of ``fail``."""

    do: str
    fault: tuple[str, str]
    message: str
    dies: bool = False
    differs: Mapping[str, End] = field(default_factory=dict)
    not_for: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.do


RAISED = "RAISED"
CRASHED = ("crashed", "Runtime.ExitError")
TIMED_OUT = ("timeout", "Sandbox.Timedout")
TOO_LARGE = ("raised", "Function.ResponseSizeTooLarge")
CONNECTION_LOST = ("crashed", "ConnectionLost")
EXITED = "Runtime exited with error: "

ENDS = (
    End("fail", ("raised", RAISED), "^no such order$"),
    End(
        "unmarshalable",
        ("raised", "Runtime.MarshalError"),
        "Unable to marshal response: .*JSON serializable",
        differs={
            # Other languages have no such type: an error of their encoder, by its name.
            "aws-lambda-go": End("", ("raised", "UnsupportedTypeError"), "json: unsupported type: chan int"),
            "aws-lambda-ric": End("", ("raised", "Runtime.JSONStringifyError"), "Unable to stringify"),
            "java": End("", ("raised", "java.lang.RuntimeException"), "JSON serialization of response"),
            "lambda_runtime": End("", CRASHED, f"{EXITED}exit status 1$", dies=True),
        },
        not_for={"http": ENCODING},
    ),
    End(
        "large",
        TOO_LARGE,
        "exceeded maximum allowed payload size",
        differs={
            # The endpoint says 413, which these clients take for the end of the world.
            "awslambdaric": End("", TOO_LARGE, "exceeded maximum allowed payload size", dies=True),
            "aws-lambda-go": End("", TOO_LARGE, "exceeded maximum allowed payload size", dies=True),
            "java": End("", TOO_LARGE, "exceeded maximum allowed payload size", dies=True),
            "http": End("", TOO_LARGE, "the answer is larger than"),
        },
    ),
    End("hang", TIMED_OUT, r"Task timed out after 0\.50 seconds$", dies=True),
    End("child", TIMED_OUT, r"Task timed out after 0\.50 seconds$", dies=True, not_for={"http": PROCESSES}),
    End(
        "exit",
        CRASHED,
        f"{EXITED}exit status 3$",
        dies=True,
        differs={"http": End("", CONNECTION_LOST, "Server disconnected|reset")},
    ),
    End(
        "kill",
        CRASHED,
        f"{EXITED}signal: SIGKILL ",
        dies=True,
        differs={"http": End("", CONNECTION_LOST, "Server disconnected|reset")},
    ),
)


@dataclass(frozen=True)
class Value:
    """What Python code returns (``answer = ...``) with report_batch_item_failures: true. ``means``: ok, or the type of
    the fault; ``by_awslambdaric`` where AWS's marshaller sees it in another way."""

    code: str
    means: str
    by_awslambdaric: str | None = None


VALUES = (
    Value("import decimal; answer = {'decimal': decimal.Decimal('1.5')}", "ok"),
    Value("answer = {'bytes': b'text'}", "ok"),
    Value("answer = '\\ud800'", "BadResponse"),
    Value("answer = float('nan')", "BadResponse"),
    Value("answer = {1, 2}", "Runtime.MarshalError"),
    Value("answer = b'bytes'", "BadResponse"),
    Value("answer = b'\\xff'", "Runtime.MarshalError", "BadResponse"),
    Value("answer = (x for x in [1])", "Runtime.MarshalError"),
    Value("answer = []; answer.append(answer)", "Runtime.MarshalError"),
    Value("async def coroutine(): pass\nanswer = coroutine()", "Runtime.MarshalError"),
)


@dataclass(frozen=True)
class Raise:
    """What Python code raises. ``ends_awslambdaric``: AWS's client lets what is no ``Exception`` end the process, and
    does not survive what it cannot print; so it is on Lambda. The built-in kind tells what it was and goes on."""

    code: str
    type: str
    message: str
    ends_awslambdaric: str = ""


RAISES = (
    Raise("raise ValueError('boom')", "ValueError", "boom"),
    Raise("raise KeyError('no\\nsuch \\u00fc')", "KeyError", "no\\nsuch \u00fc"),
    Raise("import sys; sys.exit(3)", "SystemExit", "3", "exit status 3"),
    Raise("raise KeyboardInterrupt", "KeyboardInterrupt", "", "signal: SIGINT"),
    Raise("raise GeneratorExit", "GeneratorExit", "", "exit status 1"),
    Raise("def recurse(): recurse()\nrecurse()", "RecursionError", "maximum recursion depth"),
    Raise("raise MemoryError", "MemoryError", ""),
    Raise("raise ExceptionGroup('many', [ValueError('one')])", "ExceptionGroup", "many"),
    Raise("import asyncio; raise asyncio.CancelledError", "CancelledError", "", "exit status 1"),
    Raise("raise Exception('\\ud800')", "Exception", "\\ud800", "exit status 1"),
    Raise("class Odd(Exception): __str__ = None\nraise Odd", "Odd", "__str__ raised", "exit status 1"),
)
