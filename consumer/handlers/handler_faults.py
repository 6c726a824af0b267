"""Exceptions, deaths and time-outs of user code as ``HandlerFault``, worded as Lambda words them.

Dead letters carry these texts, and people search for them: ``Task timed out after 3.00 seconds`` and
``Runtime exited with error: signal: killed`` lead straight to the known explanations.
"""

from __future__ import annotations

import errno
import signal
import traceback
from pathlib import Path
from types import TracebackType
from typing import Literal

from consumer.domain.outcome import HandlerFault

_OWN_FOLDER = str(Path(__file__).resolve().parent)
_MAX_MESSAGE = 4096
_MAX_LINE = 1024
_FIRST_FRAMES = 10
_LAST_FRAMES = 30


def clean(text: str, limit: int = _MAX_MESSAGE) -> str:
    """Text that survives every encoder (no lone surrogates, which JSON can name), of at most ``limit`` characters."""
    return text[:limit].encode("utf-8", "backslashreplace").decode("utf-8")


def describe(error: BaseException) -> str:
    """``str(error)``, even when that raises; the parts of an exception group are named too."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001  # user code, again
        text = f"(its __str__ raised {type(second).__name__})"
    if isinstance(error, BaseExceptionGroup):
        parts = [f"{type(part).__name__}: {describe(part)}" for part in error.exceptions[:5]]
        text += ": " + "; ".join(parts)
    return clean(text)


def _stack(tb: TracebackType | None) -> tuple[str, ...]:
    frames = traceback.StackSummary.extract(traceback.walk_tb(tb), lookup_lines=False)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OWN_FOLDER)]
    if len(theirs) > _FIRST_FRAMES + _LAST_FRAMES:
        theirs = theirs[:_FIRST_FRAMES] + theirs[-_LAST_FRAMES:]
    return tuple(clean(line, _MAX_LINE) for line in traceback.StackSummary.from_list(theirs).format())


def fault_of(error: BaseException) -> HandlerFault:
    """What user code raised, whatever it is; building the description never raises."""
    name = type(error).__name__
    try:
        return HandlerFault("raised", clean(name, 256), describe(error), _stack(error.__traceback__))
    except Exception:  # noqa: BLE001  # e.g. MemoryError again: the failure itself must still be reported
        return HandlerFault("raised", name, "(no description: describing the exception failed)")


def wants_network(error: BaseException) -> bool:
    """Whether an exception of user code, or one that led to it, comes from a network or a service that did not work:
    no connection, no name, no certificate, no answer in time, 429 or 5xx, or no AWS credentials."""
    import socket  # here: a worker process that starts well needs neither
    import ssl

    kinds = (ConnectionError, TimeoutError, socket.gaierror, socket.herror, ssl.SSLError)
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, kinds) or getattr(error, "errno", None) in _UNREACHABLE:
            return True
        if type(error).__name__ in _NO_CREDENTIALS or _is_busy(error):
            return True
        error = error.__cause__ or error.__context__ or error
    return False


def _is_busy(error: BaseException) -> bool:
    """The status of an HTTP answer, where urllib, requests, httpx and boto keep it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None) or getattr(error, "code", None)
    return isinstance(status, int) and (status == 429 or 500 <= status < 600)


_UNREACHABLE = {errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}
_NO_CREDENTIALS = {"NoCredentialsError", "CredentialRetrievalError"}  # of botocore


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


def marshal_fault(reason: str, type_: Literal["Runtime.MarshalError", "Function.ResponseSizeTooLarge"]) -> HandlerFault:
    """The function returned something that cannot be sent: in Lambda an error of the function, as if it had raised."""
    return HandlerFault("raised", type_, clean(reason))
