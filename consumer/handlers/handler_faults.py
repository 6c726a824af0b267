"""Exceptions, deaths and time-outs of user code as ``HandlerFault``, worded as Lambda words them.

Dead letters carry these texts, and people search for them: ``Task timed out after 3.00 seconds`` and
``Runtime exited with error: signal: killed`` lead straight to the known explanations.
"""

from __future__ import annotations

import signal
from typing import Literal

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.outcome import HandlerFault
from consumer.handlers.runtime import faults


def fault_of(error: BaseException) -> HandlerFault:
    """What user code raised, whatever it is; building the description never raises."""
    return HandlerFault("raised", *faults.fault_of(error))


def import_error(message: str, *, may_pass: bool) -> HandlerImportError:
    """What a runtime says of a target that it cannot import; ``may_pass``: by itself, as a network does."""
    return HandlerImportMayPass(message) if may_pass else HandlerImportError(message)


def timeout_fault(request_id: str, seconds: float) -> HandlerFault:
    return HandlerFault(
        "timeout", "Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {seconds:.2f} seconds"
    )


def exit_text(returncode: int) -> str:
    """How a process ended: ``exit status 3`` or ``signal: SIGKILL``."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = str(-returncode)
    return f"signal: {name}" + (" (out of memory?)" if -returncode == signal.SIGKILL else "")


def crash_fault(request_id: str, returncode: int | None, detail: str = "") -> HandlerFault:
    how = detail or exit_text(-signal.SIGKILL if returncode is None else returncode)
    return HandlerFault(
        "crashed", "Runtime.ExitError", f"RequestId: {request_id} Error: Runtime exited with error: {how}"
    )


def answer_fault(
    reason: str, type_: Literal["Function.ResponseSizeTooLarge", "Runtime.StreamedResponse"]
) -> HandlerFault:
    """The function returned something that cannot be taken: in Lambda an error of the function, as if it had raised."""
    return HandlerFault("raised", type_, faults.clean(reason))
