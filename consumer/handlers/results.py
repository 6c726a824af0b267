"""What handlers are and return, turned into outcomes; hostile results and answers that are no JSON included."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection
from typing import Any

from consumer.domain.outcome import (
    OK,
    Outcome,
    bad_response,
    from_lambda_response,
    from_python_result,
    from_window_response,
)
from consumer.handlers.handler_faults import describe

# What almost every answer is, so that the daemon does not parse it.
_SUCCESS = frozenset({b"", b"null", b"{}", b'{"batchItemFailures": []}', b'{"batchItemFailures":[]}'})


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function`` gives a coroutine: ``async def``, partials of it, objects whose call is one."""
    call = getattr(function, "__call__", None)  # noqa: B004  # the method itself is wanted, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def discard(result: Any) -> None:
    """End a coroutine or generator that a handler returned by mistake, so that it never warns or runs later."""
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()


def python_outcome(result: Any, batch: Collection[str], *, report_failures: bool) -> Outcome:
    """``from_python_result`` for results that may be hostile: what they raise when looked at fails the call.

    A plain function that returns a coroutine is most often an ``async def`` behind a decorator that hides it. It is
    not awaited after the fact: its time limit and its thread would be wrong.
    """
    if result is None:
        return from_python_result(None, batch, report_failures=report_failures)
    try:
        discard(result)
        if inspect.iscoroutine(result):
            return bad_response("the handler returned a coroutine that was not awaited: declare it with async def")
        return from_python_result(result, batch, report_failures=report_failures)
    except BaseException as error:  # noqa: BLE001  # __eq__, __hash__ and __iter__ of user objects
        return bad_response(f"the handler's result cannot be read: {type(error).__name__}: {describe(error)}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def lambda_outcome(body: bytes, batch: Collection[str], *, report_failures: bool, windowed: bool = False) -> Outcome:
    """Apply Lambda's rules to the response ``body`` (JSON text; empty is null). Without ``report_failures`` it may be
    anything: nobody looks at it, but for the state of a window."""
    if not windowed and (not report_failures or body in _SUCCESS):
        return OK
    try:
        response = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return bad_response(f"the response is not JSON: {error}")
    apply = from_window_response if windowed else from_lambda_response
    return apply(response, batch, report_failures=report_failures)
