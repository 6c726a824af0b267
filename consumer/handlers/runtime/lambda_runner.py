"""``def handler(event, context)`` as Lambda calls it: a fresh event, a JSON answer, no awaiting."""

from __future__ import annotations

import decimal
import inspect
import json
import os
from collections.abc import Callable
from typing import Any

from . import wire
from .context import Context, FunctionIdentity
from .faults import Fault, clean, describe
from .functions import discard
from .root_logger import LambdaLogHandler

Reply = dict[str, Any]  # the header of a frame


class LambdaRunner:
    """Raises what user code raises, of any type."""

    def __init__(self, function: Callable[..., Any], log: LambdaLogHandler) -> None:
        self._function = function
        self._log = log
        self._event_of = event_decoder()

    def __call__(self, invocation: dict[str, Any], event: bytes | bytearray) -> tuple[Reply, bytes]:
        self._log.request_id = invocation["request_id"]
        return _marshal(self._function(self._event_of(event), context_of(invocation)))


def context_of(invocation: dict[str, Any]) -> Context:
    """The context of one call. The function's name tags are read anew: user code may change its environment."""
    return Context(
        function=FunctionIdentity(os.environ, invocation["application"]),
        aws_request_id=invocation["request_id"],
        source_arn=invocation["source_arn"],
        application=invocation["application"],
        shard_id=invocation["shard_id"],
        lease_epoch=invocation["lease_epoch"],
        attempt=invocation["attempt"],
        redrive=invocation["redrive"],
        deadline=invocation["deadline"],
    )


def event_decoder() -> Callable[[bytes | bytearray], Any]:
    """What ``json.loads`` does, in two thirds of the time where the function's environment has msgspec. What that
    refuses and json takes (NaN, infinity, lone surrogates) is left to json. Asked for when the user's code is imported:
    a module of theirs may have the name."""
    try:
        import msgspec

        decode = msgspec.json.Decoder().decode
    except Exception:  # noqa: BLE001  # whatever it is that has this name
        return json.loads

    def event_of(text: bytes | bytearray) -> Any:
        try:
            return decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return json.loads(text)

    return event_of


class _Encoder(json.JSONEncoder):
    """As Lambda's runtime: a Decimal becomes a float, bytes are text, and what else is not JSON is an error."""

    def default(self, o: Any) -> Any:
        if isinstance(o, decimal.Decimal):
            return float(o)
        return o.decode() if isinstance(o, bytes) else super().default(o)


def _marshal(result: Any) -> tuple[Reply, bytes]:
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        discard(result)
        reason = "the handler is async, which Lambda does not run: use handler.kind python, or asyncio.run in it"
        return _refused(f"Unable to marshal response: {reason}")
    try:
        body = json.dumps(result, cls=_Encoder).encode()
    except BaseException as error:  # noqa: BLE001  # cycles, depth, and user objects that pretend to be dicts
        discard(result)
        return _refused(f"Unable to marshal response: {describe(error)}")
    if len(body) > wire.MAX_RESPONSE:
        text = f"Response payload size ({len(body)} bytes) exceeded maximum allowed payload size"
        return _refused(f"{text} ({wire.MAX_RESPONSE} bytes).", "Function.ResponseSizeTooLarge")
    return {"kind": "returned"}, body


def _refused(reason: str, type_: str = "Runtime.MarshalError") -> tuple[Reply, bytes]:
    """In Lambda an error of the function, as if it had raised."""
    return {"kind": "raised", "fault": Fault(type_, clean(reason))}, b""
