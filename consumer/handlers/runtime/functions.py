"""What user code is and returns, looked at from outside."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling ``function`` gives a coroutine: ``async def``, partials of it, objects whose call is one."""
    call = getattr(function, "__call__", None)  # noqa: B004  # the method itself is wanted, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def discard(result: Any) -> None:
    """End a coroutine or generator that a handler returned by mistake, so that it never warns or runs later."""
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()
