"""Log lines: one ASCII line an event whatever is logged, and a standard output that cannot hurt the daemon."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
import structlog

from consumer.operate.error_groups import ErrorReport
from consumer.operate.log_writer import QUEUE_BYTES, LogWriter
from consumer.operate.logs import LINE_LIMIT, close_logging, configure_logging, write_verbatim

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What was written to standard output, after closing the log."""
    out = io.BytesIO()
    monkeypatch.setattr("consumer.operate.logs.write_stdout", lambda: out.write)
    root = logging.getLogger()
    level = root.level

    def read() -> list[str]:
        close_logging()
        text = out.getvalue().decode("ascii")
        assert text == "" or text.endswith("\n")
        return text.split("\n")[:-1]

    yield read
    close_logging()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.setLevel(level)


def only(lines: Lines) -> dict[str, object]:
    (line,) = lines()
    event: dict[str, object] = json.loads(line)
    return event


@pytest.mark.parametrize("shape", ["json", "console"])
def test_a_verbatim_object_is_the_line_whatever_the_level(lines: Lines, shape: str) -> None:
    """Metrics are no messages; and no error for the status page."""
    errors: list[str] = []
    configure_logging("error", shape, on_error=lambda report: errors.append(report.event))
    metrics = {"_aws": {"CloudWatchMetrics": []}, "note": "\x7fü\n" + "x" * 50_000}
    structlog.get_logger().critical("handler.metrics", verbatim=metrics)
    assert (only(lines), errors) == (metrics, [])


def test_who_writes_a_verbatim_line_learns_whether_it_was_taken(lines: Lines) -> None:
    assert not write_verbatim({"n": 0}), "there is no log yet"
    configure_logging("error", "json")
    assert write_verbatim({"n": 1})
    assert not write_verbatim({"n": "x" * QUEUE_BYTES})
    assert json.loads(lines()[0]) == {"n": 1}


def test_one_json_object_a_line_with_the_standard_fields(lines: Lines) -> None:
    configure_logging("info", "json")
    structlog.contextvars.bind_contextvars(application="orders")
    structlog.get_logger("consumer.worker").info("lease.acquired", shard_id="s-1", epoch=3)
    event = only(lines)
    assert list(event)[:4] == ["timestamp", "level", "event", "logger"]
    stamp = str(event.pop("timestamp"))
    assert stamp.endswith("Z")
    assert abs(datetime.fromisoformat(stamp).timestamp() - time.time()) < 60
    assert event == {
        "level": "info",
        "event": "lease.acquired",
        "logger": "consumer.worker",
        "application": "orders",
        "shard_id": "s-1",
        "epoch": 3,
    }


HOSTILE = 'a\r\n{"event":"forged"}\x1b[31m\x00\x7f\x9b\u2028\u202e\ud800é'


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_in_an_event_can_forge_a_line_or_reach_a_terminal(lines: Lines, form: str) -> None:
    configure_logging("info", form)
    log = structlog.get_logger()
    log.error(HOSTILE, value=HOSTILE, nested={HOSTILE: [HOSTILE]}, **{HOSTILE: 1})
    # pytest captures this one too, and its parallel workers cannot send a lone surrogate.
    logging.getLogger("user.code").error("%s", HOSTILE.replace("\ud800", ""))
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("handler.crashed")
    written = lines()
    assert len(written) == 3
    for line in written:
        assert line.isascii()
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["event"] != "forged"


def test_a_change_of_level_leaves_no_moment_without_a_handler(lines: Lines) -> None:
    """What libraries log in a thread meanwhile would go to standard error."""
    configure_logging("info", "json")
    before = list(logging.getLogger().handlers)
    configure_logging("warning", "json")
    assert logging.getLogger().handlers == before
    logging.getLogger("user.code").warning("once")
    assert len(lines()) == 1


def test_levels(lines: Lines) -> None:
    configure_logging("warning", "json")
    structlog.get_logger().info("quiet")
    logging.getLogger("user").info("quiet")
    structlog.get_logger().warning("loud")
    configure_logging("debug", "json")
    structlog.get_logger().debug("now_heard")
    assert [json.loads(line)["event"] for line in lines()] == ["loud", "now_heard"]


def test_a_logger_made_before_configuration_follows_it(lines: Lines) -> None:
    log = structlog.get_logger("early").bind(a=1)
    configure_logging("info", "json")
    structlog.get_logger("early").info("x")
    del log
    assert only(lines)["logger"] == "early"


@pytest.mark.parametrize(("level", "form"), [("loud", "json"), ("info", "xml"), ("INFO", "json")])
def test_unknown_settings_are_refused(level: str, form: str) -> None:
    with pytest.raises(ValueError, match="unknown log level"):
        configure_logging(level, form)


@pytest.mark.parametrize("name", ["botocore.auth", "aiobotocore.endpoint", "aiohttp.access", "urllib3.x", "asyncio"])
def test_libraries_are_pinned_even_when_someone_turns_them_up(lines: Lines, name: str) -> None:
    configure_logging("debug", "json")
    library = logging.getLogger(name)
    before = library.level
    library.setLevel(logging.DEBUG)
    try:
        library.debug("Authorization: AWS4-HMAC-SHA256 Credential=...")
        library.info("secret")
        library.warning("connection %s", "lost")
    finally:
        library.setLevel(before)
    event = only(lines)
    assert (event["event"], event["logger"], event["level"]) == ("connection lost", name, "warning")


def test_warnings_and_broken_format_strings_of_foreign_code(lines: Lines) -> None:
    configure_logging("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old api", UserWarning, stacklevel=1)
    record = logging.LogRecord("user", logging.WARNING, __file__, 1, "%d records", ("many",), None)
    (ours,) = [
        handler for handler in logging.getLogger().handlers if type(handler).__module__ == "consumer.operate.logs"
    ]
    ours.handle(record)  # pytest's own handler would raise
    first, second = (json.loads(line) for line in lines())
    assert "old api" in first["event"]
    assert "%d records" in second["event"]


def test_exceptions_are_structured_and_bounded(lines: Lines) -> None:
    configure_logging("info", "json")

    def deep(n: int) -> None:
        if n == 0:
            secret = "do not print locals"
            raise ExceptionGroup("many", [KeyError("k"), ValueError(len(secret))])
        deep(n - 1)

    try:
        try:
            deep(200)
        except ExceptionGroup as error:
            raise RuntimeError("x" * 10_000) from error
    except RuntimeError:
        structlog.get_logger().exception("handler.crashed")
    (line,) = lines()
    assert "do not print locals" not in line
    error = json.loads(line)["exception"]
    assert error["type"] == "RuntimeError"
    assert len(error["message"]) < 600
    assert error["stack"][-1].endswith("in test_exceptions_are_structured_and_bounded")
    assert error["cause"]["type"] == "ExceptionGroup"
    assert [part["type"] for part in error["cause"]["exceptions"]] == ["KeyError", "ValueError"]
    assert len(error["cause"]["stack"]) == 30


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_values_that_json_cannot_hold(lines: Lines) -> None:
    configure_logging("info", "json")
    circular: list[object] = []
    circular.append(circular)
    log = structlog.get_logger()
    log.info("a", nan=float("nan"), huge=10**400, bytes=b"\xff", broken=Broken())
    log.info("b", circular=circular)
    log.info("c", keys={(1, 2): 3})
    log.info("d", text="x" * 100_000)
    log.info("e", many={str(n): "\x00" * 4000 for n in range(100)})
    log.info("f", **{f"k{n}": "\x00" * 4000 for n in range(500)})
    written = lines()
    assert [json.loads(line)["event"] for line in written] == list("abcdef")
    assert all(len(line) <= LINE_LIMIT for line in written)
    assert json.loads(written[4])["truncated"] is True


def test_errors_reach_the_status_page(lines: Lines) -> None:
    seen: list[ErrorReport] = []
    configure_logging("info", "json", on_error=seen.append)
    log = structlog.get_logger()
    log.warning("session.renew_failed")
    log.error("shard.halted", shard_id="s-1", error_type="ValueError", error_at="app.py:3 in handle")
    try:
        raise KeyError("k")
    except KeyError:
        log.exception("task.died")
    assert len(lines()) == 3
    halted, died = seen
    assert (halted.event, halted.type, halted.place) == ("shard.halted", "ValueError", "app.py:3 in handle")
    assert halted.shard_id == "s-1"
    assert (died.event, died.type, died.text) == ("task.died", "KeyError", "KeyError: 'k'")
    assert died.place.endswith(f"in {test_errors_reach_the_status_page.__name__}")


@pytest.mark.parametrize("message", ["customer-17 has no address", "no.address"])
def test_what_a_foreign_logger_says_is_text_and_no_name(lines: Lines, message: str) -> None:
    """It may be data of an item, which the status page does not show."""
    seen: list[ErrorReport] = []
    configure_logging("info", "json", on_error=seen.append)
    logging.getLogger("app.orders").error(message)
    assert only(lines)["event"] == message
    (report,) = seen
    assert (report.event, report.text) == ("log.error", message)
    assert report.place.startswith("app.orders:")


def test_what_user_code_says_to_structlog_is_text_and_no_name(lines: Lines) -> None:
    seen: list[ErrorReport] = []
    configure_logging("info", "json", on_error=seen.append)
    structlog.get_logger().error("customer 17 has no address")
    assert [(report.event, report.text) for report in seen] == [("log.error", "customer 17 has no address")]


def test_events_after_closing_are_dropped_quietly(lines: Lines) -> None:
    configure_logging("info", "json")
    assert lines() == []
    structlog.get_logger().error("late")
    assert lines() == []


# --- the writer


def drops(lost: int) -> bytes:
    return b"lost %d\n" % lost


def test_a_blocked_reader_costs_lines_not_time_and_the_gap_is_reported() -> None:
    gate = threading.Event()
    out: list[bytes] = []

    def write(data: bytes) -> None:
        gate.wait(10)
        out.append(data)

    writer = LogWriter(write, drops, limit=1000)
    started = time.monotonic()
    for _ in range(1000):
        writer.put(b"x" * 99 + b"\n")
    assert time.monotonic() - started < 1
    assert not writer.flush(0.05)
    gate.set()
    assert writer.flush(5)
    writer.put(b"after\n")
    writer.close()
    text = b"".join(out)
    # The thread may take its first lines at any moment of the flood: what is lost is reported in one line or in two.
    lost = sum(int(number) for number in re.findall(rb"^lost (\d+)$", text, re.MULTILINE))
    assert lost >= 980
    assert lost + text.count(b"x\n") == 1000
    assert text.endswith(b"after\n")


def test_closing_does_not_wait_for_ever() -> None:
    gate = threading.Event()
    writer = LogWriter(lambda data: gate.wait(30) and None, drops)
    writer.put(b"x\n")
    started = time.monotonic()
    writer.close(0.2)
    assert time.monotonic() - started < 2
    gate.set()


def test_an_output_that_fails_and_comes_back() -> None:
    broken = True
    out: list[bytes] = []

    def write(data: bytes) -> None:
        if broken:
            raise BrokenPipeError
        out.append(data)

    writer = LogWriter(write, drops)
    for _ in range(5):
        writer.put(b"a\n")
        assert writer.flush(2)
    broken = False
    writer.put(b"b\n")
    writer.close()
    assert b"".join(out) == b"lost 5\nb\n"


PROGRAM = textwrap.dedent(
    """
    import sys, time, structlog
    from consumer.operate.logs import configure_logging, close_logging
    configure_logging("info", "json")
    log = structlog.get_logger()
    started = time.monotonic()
    for n in range(int(sys.argv[1])):
        log.info("tick", n=n, pad="x" * 1000)
    took = time.monotonic() - started
    close_logging()
    print("end", round(took), file=sys.stderr, flush=True)
    """
)


def start(count: int, shell: str = 'exec "$0" "$@"', stdout: int | None = None) -> subprocess.Popen[bytes]:
    command = ["sh", "-c", shell, sys.executable, "-c", PROGRAM, str(count)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=stdout)


def test_standard_output_closed_before_the_start() -> None:
    process = start(100, 'exec "$0" "$@" >&-')
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == b"end 0\n"


def test_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    process = start(5000, stdout=writer)
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors.startswith(b"end ")
    assert b"Traceback" not in errors


def test_a_pipe_that_is_not_read() -> None:
    reader, writer = os.pipe()
    process = start(10_000, stdout=writer)
    os.close(writer)
    _, errors = process.communicate(timeout=30)  # 10 MB into a pipe of 64 KiB
    os.close(reader)
    assert process.returncode == 0
    assert errors.startswith(b"end ")


def test_everything_is_written_at_exit() -> None:
    process = start(2000, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=30)
    assert [json.loads(line)["n"] for line in out.splitlines()] == list(range(2000))
