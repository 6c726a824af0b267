"""What ``python`` handlers return, turned into outcomes; hostile results included."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from ...domain.outcome import Outcome, bad_response, from_python_result
from .faults import describe
from .functions import discard


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
