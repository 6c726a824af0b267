"""``handle(records, context)``, plain or async. This and what it imports needs Python 3.11 and msgspec, as the types of
its records do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ...domain import compiled_values
from ...domain.events import records_from_event
from .context import Context
from .functions import is_async
from .lambda_runner import Reply, context_of
from .python_results import python_outcome

if TYPE_CHECKING:
    import asyncio  # when running: only where a loop is needed, it doubles the start time of a worker

# The exit status of a worker that cannot go on (sysexits.h EX_SOFTWARE).
BROKEN = 70


class PythonRunner:
    """Async handlers share one loop for the life of the process. Raises what user code raises, of any type."""

    def __init__(self, function: Callable[..., Any], report_failures: bool) -> None:
        self._function = function
        self._report_failures = report_failures
        compiled_values.choose(os.environ)  # of this interpreter, which with handler.python is not the daemon's
        self._loop: asyncio.AbstractEventLoop | None = None
        if is_async(function):
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)

    def __call__(self, invocation: dict[str, Any], event: bytes | bytearray) -> tuple[Reply, bytes]:
        context = context_of(invocation)
        records = list(records_from_event(event))
        numbers = frozenset(record.sequence_number for record in records)
        result = self._function(records, context) if self._loop is None else self._run(self._loop, records, context)
        outcome = python_outcome(result, numbers, report_failures=self._report_failures)
        return {"kind": "ended", "outcome": msgspec.to_builtins(outcome)}, b""

    def _run(self, loop: asyncio.AbstractEventLoop, records: list[Any], context: Context) -> Any:
        task = loop.create_task(self._caught(records, context))
        try:
            result, error = loop.run_until_complete(task)
        except RuntimeError:
            if task.done():
                raise
            # User code stopped the loop that runs it: half a call may still be alive, so the process ends.
            said = "the handler stopped the event loop of its worker process"
            print(said, file=sys.stderr, flush=True)  # noqa: T201 - standard error is how a worker process reports
            os._exit(BROKEN)
        if error is not None:
            raise error
        return result

    async def _caught(self, records: list[Any], context: Context) -> tuple[Any, BaseException | None]:
        """Catches inside the task: asyncio would let SystemExit and KeyboardInterrupt tear down the loop."""
        try:
            return await self._function(records, context), None
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return None, error
