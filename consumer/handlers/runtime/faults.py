"""What user code raised, described without ever raising again."""

from __future__ import annotations

import builtins
import errno
import traceback
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_OWN_FOLDER = str(Path(__file__).resolve().parents[1])  # what runs inside the daemon lies beside this package
_MAX_MESSAGE = 4096
_MAX_LINE = 1024
_FIRST_FRAMES = 10
_LAST_FRAMES = 30
_GROUP: type[BaseException] | tuple[()] = getattr(builtins, "BaseExceptionGroup", ())  # from Python 3.11 on


class Fault(NamedTuple):
    """An exception as ``type`` (its name), ``message`` and ``stack`` (lines without those of this package)."""

    type: str
    message: str
    stack: tuple[str, ...] = ()


def clean(text: str, limit: int = _MAX_MESSAGE) -> str:
    """Text that survives every encoder (no lone surrogates, which JSON can name), of at most ``limit`` characters."""
    return text[:limit].encode("utf-8", "backslashreplace").decode("utf-8")


def describe(error: BaseException) -> str:
    """``str(error)``, even when that raises; the parts of an exception group are named too."""
    try:
        text = str(error)
    except Exception as second:  # noqa: BLE001  # user code, again
        text = f"(its __str__ raised {type(second).__name__})"
    if isinstance(error, _GROUP):
        parts = [f"{type(part).__name__}: {describe(part)}" for part in getattr(error, "exceptions", ())[:5]]
        text += ": " + "; ".join(parts)
    return clean(text)


def fault_of(error: BaseException) -> Fault:
    """What user code raised, whatever it is; building the description never raises."""
    name = type(error).__name__
    try:
        return Fault(clean(name, 256), describe(error), _stack(error.__traceback__))
    except Exception:  # noqa: BLE001  # e.g. MemoryError again: the failure itself must still be reported
        return Fault(name, "(no description: describing the exception failed)")


def _stack(tb: TracebackType | None) -> tuple[str, ...]:
    frames = traceback.StackSummary.extract(traceback.walk_tb(tb), lookup_lines=False)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OWN_FOLDER)]
    if len(theirs) > _FIRST_FRAMES + _LAST_FRAMES:
        theirs = theirs[:_FIRST_FRAMES] + theirs[-_LAST_FRAMES:]
    return tuple(clean(line, _MAX_LINE) for line in traceback.StackSummary.from_list(theirs).format())


def wants_network(error: BaseException) -> bool:
    """Whether an exception of user code, or one that led to it, comes from a network or a service that did not work:
    no connection, no name, no certificate, no answer in time, 429 or 5xx, or no AWS credentials."""
    import socket  # here: a worker process that starts well needs neither
    import ssl

    kinds = (ConnectionError, TimeoutError, socket.timeout, socket.gaierror, socket.herror, ssl.SSLError)
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
