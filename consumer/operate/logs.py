"""Logging: every event, the daemon's and the libraries', becomes one line of ASCII on standard output.

Records come from every program that may write to the source table, so nothing in a line is trusted: JSON is written
with every non-ASCII and control character escaped (no forged lines, no terminal sequences), texts are cut, and
exceptions are structured with their message marked by its own field. Libraries are kept at WARNING and above, because
botocore's DEBUG prints request bodies and authorization headers.
"""

from __future__ import annotations

import atexit
import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from consumer.domain.urls import redact_urls
from consumer.operate.error_groups import ErrorReport
from consumer.operate.log_writer import LogWriter, write_stdout

TEXT_LIMIT: Final = 4096  # characters of one value
LINE_LIMIT: Final = 32 * 1024  # characters of one line
MESSAGE_LIMIT: Final = 512  # characters of an exception's message
_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,40}(\.[a-z][a-z0-9_]{0,40}){1,3}")
FRAMES: Final = 30  # stack frames kept of an exception: the innermost ones
CAUSES: Final = 3  # exceptions kept of a chain

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
PINNED: Final = ("aioboto3", "aiobotocore", "aiohttp", "asyncio", "boto3", "botocore", "s3transfer", "urllib3")

OnError = Callable[[ErrorReport], None]
Render = Callable[[MutableMapping[str, Any]], str]


class _State:
    """What ``configure_logging`` set up, so that it can be replaced and taken down."""

    writer: LogWriter | None = None
    handler: logging.Handler | None = None
    render: Render
    on_error: OnError | None = None


def configure_logging(level: str, format: str, *, on_error: OnError | None = None) -> None:  # noqa: A002 - as the setting
    """Send all logging of this process to standard output. May be called again to change level or format.

    Args:
        level: debug, info, warning or error; libraries stay at warning or above.
        format: json (one object a line) or console (for people; also one line an event).
        on_error: called with every ERROR, for the status page. Must not block.

    Raises:
        ValueError: an unknown level or format.
    """
    renders: dict[str, Render] = {"json": _json_line, "console": _console_line}
    if level not in LEVELS or format not in renders:
        raise ValueError(f"unknown log level {level!r} or format {format!r}")
    if _State.writer is None:
        _State.writer = LogWriter(write_stdout(), _drops_line)
        atexit.register(close_logging)
    _State.render = renders[format]
    _State.on_error = on_error
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            _add_logger,
            _structure_exception,
            _emit,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_NamedLogger,
        cache_logger_on_first_use=False,  # a changed level must reach loggers that exist already
    )
    _route_standard_logging(LEVELS[level])


def close_logging() -> None:
    """Write what is queued (for at most two seconds) and let go of standard output. Idempotent.

    Events that come later are dropped: structlog's own default would print to a pipe that may be broken.
    """
    writer, _State.writer = _State.writer, None
    if writer is None:
        return
    atexit.unregister(close_logging)
    if _State.handler is not None:
        logging.getLogger().removeHandler(_State.handler)
        logging.captureWarnings(False)
        _State.handler = None
    writer.close()


def write_event(event: str, **fields: Any) -> None:
    """Log an INFO event whatever the level is: a person has asked for it."""
    with suppress(structlog.DropEvent):
        _emit(None, "info", {"event": event, "level": "info", **fields})


def write_verbatim(document: Mapping[str, Any]) -> bool:
    """Write an object as a whole line, whatever the level is: who reads metrics out of a log finds them at its root
    only. False when the line is lost, because the log is not read or closed."""
    writer = _State.writer
    return writer is not None and writer.put(f"{_json_line(document)}\n".encode("ascii", "backslashreplace"))


# --- from event to line


class _NamedLogger:
    """What structlog wraps: it only carries the name given to ``structlog.get_logger(name)``."""

    def __init__(self, name: str = "consumer") -> None:
        self.name = name

    def msg(self, message: str) -> None:
        """Never called with text: ``_emit`` ends every event."""

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


def _add_logger(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event.setdefault("logger", getattr(logger, "name", "consumer"))
    return event


def _structure_exception(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if info is None:
        info = method == "exception"
    if isinstance(info, int):  # True or 1: the exception that is being handled
        info = sys.exc_info() if info else None
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["exception"] = describe_exception(error)
    return event


def describe_exception(error: BaseException, depth: int = CAUSES) -> dict[str, Any]:
    """An exception as data: type, message (cut), the innermost frames without locals, cause, and parts of a group."""
    kind = type(error)
    described: dict[str, Any] = {
        "type": kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        "message": _cut(redact_urls(_text(error)), MESSAGE_LIMIT),
        "stack": [
            f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(error.__traceback__)
        ][-FRAMES:],
    }
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if depth > 1:
        if isinstance(error, BaseExceptionGroup):
            described["exceptions"] = [describe_exception(part, depth - 1) for part in error.exceptions[:CAUSES]]
        if cause is not None:
            described["cause"] = describe_exception(cause, depth - 1)
    return described


def _emit(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """The end of the chain: render, queue, and show errors on the status page. A ``verbatim`` object is the whole
    line."""
    verbatim = event.get("verbatim")
    if verbatim is not None:
        write_verbatim(verbatim)
        raise structlog.DropEvent
    if event.get("level") in ("error", "critical") and _State.on_error is not None:
        _State.on_error(_report(event))
    writer = _State.writer
    if writer is not None:
        writer.put(_render(event).encode("ascii", "backslashreplace"))
    raise structlog.DropEvent


def _render(event: MutableMapping[str, Any]) -> str:
    ordered: dict[str, Any] = {
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": event.pop("level", "info"),
        "event": _text(event.pop("event", "")),
        "logger": event.pop("logger", "consumer"),
    }
    ordered.update((str(name), _cut(value)) for name, value in event.items() if not str(name).startswith("_"))
    ordered["event"] = _cut(ordered["event"])
    try:
        line = _State.render(ordered)
    except (TypeError, ValueError, RecursionError):  # circular, NaN, a key that is no text
        line = _State.render(_flat(ordered))
    if len(line) > LINE_LIMIT:
        line = _State.render(_flat(ordered) | {"truncated": True})
    return line + "\n"


def _json_line(event: Mapping[str, Any]) -> str:
    # DEL is the one control character that json leaves as it is.
    return json.dumps(event, default=_text, allow_nan=False, separators=(",", ":")).replace("\x7f", "\\u007f")


def _console_line(event: MutableMapping[str, Any]) -> str:
    fields = dict(event)
    timestamp, level, name = fields.pop("timestamp"), fields.pop("level"), fields.pop("event")
    fields.pop("logger", None)
    shown = " ".join(f"{_plain(str(key))}={_plain(value)}" for key, value in fields.items())
    return f"{timestamp} [{_plain(level):<7}] {_plain(name)}  {shown}".rstrip()


def _plain(value: Any) -> str:
    """A value for people: bare when it is a plain word or sentence, else JSON (so also escaped)."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and value and '"' not in value:
        return value
    return _json_line(value)


def _flat(event: Mapping[str, Any]) -> dict[str, Any]:
    """Every value as a short text: always renders, always fits."""
    limit = max(32, LINE_LIMIT // 6 // (len(event) + 1))  # an escape makes up to six characters of one
    return {name[:limit]: _cut(_text(value), min(limit, 200)) for name, value in list(event.items())[:100]}


def _cut(value: Any, limit: int = TEXT_LIMIT) -> Any:
    if isinstance(value, str) and len(value) > limit:
        return f"{value[:limit]}...(+{len(value) - limit})"
    return value


def _text(value: Any) -> str:
    """``str`` that never raises: logging must survive objects with a broken ``__str__``."""
    try:
        return value if type(value) is str else str(value)
    except Exception as error:  # noqa: BLE001 - whatever a foreign __str__ does
        return f"<{type(value).__name__} without text: {type(error).__name__}>"


def _report(event: Mapping[str, Any]) -> ErrorReport:
    """What the status page shows of an error. The text of a foreign logger is no name: it may hold anything."""
    name, exception = _text(event.get("event", "")), event.get("exception")
    stack = exception.get("stack") if isinstance(exception, Mapping) else None
    place = stack[-1] if stack else event.get("error_at") or event.get("_place") or ""
    kind = exception.get("type") if isinstance(exception, Mapping) else event.get("error_type") or ""
    is_ours = _EVENT.fullmatch(name) is not None and "_place" not in event
    return ErrorReport(
        event=name if is_ours else f"log.{event.get('level')}",
        type=_text(kind),
        place=_text(place),
        shard_id=_text(event.get("shard_id") or ""),
        text=_summary(event) if is_ours else f"{_cut(name, 200)} {_summary(event)}".rstrip(),
    )


def _summary(event: Mapping[str, Any]) -> str:
    hidden = ("event", "level", "logger", "timestamp", "exception")
    shown = {name: value for name, value in event.items() if name not in hidden and not str(name).startswith("_")}
    parts = [f"{name}={_cut(_text(value), 200)}" for name, value in shown.items()]
    exception = event.get("exception")
    if isinstance(exception, Mapping):
        parts.append(f"{exception.get('type')}: {exception.get('message')}")
    return " ".join(parts)


def _drops_line(lost: int) -> bytes:
    return _render({"level": "warning", "event": "log.dropped", "lines": lost}).encode("ascii", "backslashreplace")


# --- the libraries' logging


class _StandardHandler(logging.Handler):
    """Standard-library records through the same chain. A record that cannot be formatted is shown as it came."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and record.name.partition(".")[0] in PINNED:
            return  # user code set a library's logger to DEBUG; the root logger's level does not stop that
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format string in foreign code
            message = f"{record.msg} {record.args!r}"
        level = record.levelname.lower()
        event: EventDict = structlog.contextvars.get_contextvars()
        event.update(event=redact_urls(message), level=level, logger=record.name, exc_info=record.exc_info)
        event["_place"] = f"{record.name}:{record.lineno}"
        with suppress(structlog.DropEvent):
            _emit(None, level, _structure_exception(None, level, event))


def _route_standard_logging(level: int) -> None:
    root = logging.getLogger()
    _State.handler = _State.handler or _StandardHandler()  # never without one: other threads log meanwhile
    root.addHandler(_State.handler)
    root.setLevel(level)
    for name in PINNED:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
