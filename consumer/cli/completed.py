"""Runs what a verb does on an event loop, to its result or to one line that says why there is none."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from consumer.cli.failures import one_line_errors

T = TypeVar("T")


def answer_of(work: Coroutine[Any, Any, T], *quiet: str) -> T:
    """What a verb has found out or done, as ``completed`` runs it. Warnings become lines of standard error, but for the
    events in ``quiet``; an error ends the process with one line and its exit code."""
    from consumer.cli.stderr_log import warnings_on_stderr  # imported on use, as asyncio

    with warnings_on_stderr(lambda name, _: name in quiet), one_line_errors():
        return completed(work)


def completed(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``, which SIGTERM ends as Ctrl-C does: what the verb has taken is given back before the process ends
    with 143. A verb with a handler of its own keeps it."""
    import asyncio  # takes longer than all else that --help needs

    terminated = False

    async def until_terminated() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            if task is not None and not terminated:  # a second one must not cut short how it ends
                task.cancel()
            terminated = True

        if _kills(signal.SIGTERM):
            loop.add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(until_terminated())
    except asyncio.CancelledError:
        if terminated:
            sys.exit(128 + signal.SIGTERM)
        raise


def _kills(signum: signal.Signals) -> bool:
    """Whether a signal would end the process, and this thread may say otherwise."""
    return threading.current_thread() is threading.main_thread() and signal.getsignal(signum) is signal.SIG_DFL
