"""SIGHUP and SIGUSR1 to a real daemon: what changes, what is refused, and what is written while it is wedged."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker, duplicates, out_of_order, wait_until

NOT_K1 = [{"dynamodb": {"Keys": {"pk": {"S": [{"anything-but": ["k0001"]}]}}}}]
# It waits in C, without the interpreter's lock, and no signal takes it out: a driver on a dead connection.
WEDGED = """
import ctypes

async def handler(records, context):
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):
        libc.pthread_mutex_lock(mutex)
"""


def rewrite(worker: Worker, **changed: Any) -> None:
    """The file of the worker with these sections."""
    config = yaml.safe_load(worker.config.read_text())
    for section, value in changed.items():
        config[section] = {**config.get(section, {}), **value} if isinstance(value, dict) else value
    worker.config.write_text(yaml.safe_dump(config))


def events(worker: Worker, name: str) -> list[dict[str, Any]]:
    return [event for event in worker.events() if event["event"] == name]


def children(pid: int) -> set[int]:
    """The processes that a process has started, by any of its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


@contextmanager
def hanging(worker: Worker) -> Iterator[None]:
    """Reload a file whose reading does not end."""
    worker.config.unlink()
    os.mkfifo(worker.config)
    worker.send(signal.SIGHUP)
    writers: list[int] = []

    def is_read() -> bool:
        with suppress(OSError):  # no reader yet
            writers.append(os.open(worker.config, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    wait_until(is_read, 10, "the file is read")
    try:
        yield
    finally:
        os.close(writers[0])


def test_a_daemon_reloads_and_reports_while_records_flow(aws: Aws, fleet: Fleet) -> None:
    worker = fleet.start("w", {"HANDLER_SECONDS": "0.02"})
    written = aws.write(fleet.table, 10, range(1, 4))
    fleet.wait_for({("k0002", 1)}, 30)

    rewrite(worker, logging={"level": "warning"}, filters=NOT_K1)
    written |= aws.write(fleet.table, 10, range(4, 6))
    worker.send(signal.SIGHUP)
    wait_until(lambda: events(worker, "config.reloaded"), 10, "the file is taken over")
    (reloaded,) = events(worker, "config.reloaded")
    assert set(reloaded["changed"]) == {"logging.level", "filters"}
    wait_until(lambda: worker.status()["changed_settings"].get("logging.level") == "warning", 10, "the page shows it")
    skipped = aws.write(fleet.table, 10, range(6, 9))
    fleet.wait_for({(key, version) for key, version in skipped if key != "k0001"}, 30)

    # Two keys that may change and one that may not: nothing of it.
    rewrite(worker, filters=[], logging={"level": "info"}, batch={"batch_size": 5})
    worker.send(signal.SIGHUP)
    wait_until(lambda: events(worker, "config.reload_refused"), 10, "the file is refused")
    assert events(worker, "config.reload_refused")[0]["needs_restart"] == ["batch.batch_size"]
    assert worker.metric("stream_consumer_config_last_reload_successful") == 0

    # What reaches every process of the service ends none of them.
    handlers = children(worker.process.pid)
    assert handlers
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        for pid in handlers:
            os.kill(pid, signum)
    worker.send(signal.SIGUSR1)
    parts = {"worker", "shard", "thread", "tasks"}
    wait_until(lambda: {event["part"] for event in events(worker, "state.dump")} == parts, 10, "the state is written")

    skipped |= aws.write(fleet.table, 10, range(9, 11))
    fleet.wait_for({(key, version) for key, version in skipped if key != "k0001"}, 30)
    assert children(worker.process.pid) == handlers
    with hanging(worker):
        worker.send(signal.SIGTERM)
        assert worker.wait(20) == 0, "a disk that hangs holds up no stop"
    assert [event["signal"] for event in events(worker, "signal.received")] in ([], ["SIGHUP"]), "the level counts"
    handled = fleet.handled()
    assert {(key, version) for key, version in written if key != "k0001"} <= handled
    assert not {(key, version) for key, version in skipped if key == "k0001"} & handled
    assert (duplicates(fleet.journal()), out_of_order(fleet.journal())) == (0, 0)


def test_a_wedged_daemon_says_where(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """In foreign code that does not return, where no signal handler of Python runs."""
    (tmp_path / "wedged.py").write_text(WEDGED)
    handler = {"kind": "python", "isolation": "inline", "target": "wedged:handler", "path": str(tmp_path)}
    worker = fleet.start("w", handler=handler)
    aws.write(fleet.table, 1, range(1, 2))
    wait_until(lambda: worker.metric("stream_consumer_in_flight_records") > 0, 30, "it works")

    def written() -> str:
        worker.send(signal.SIGUSR1)
        stacks = [event["stack"] for event in events(worker, "state.dump") if event["part"] == "thread"]
        return next((" ".join(stack) for stack in stacks if "wedged.py" in " ".join(stack)), "")

    wait_until(written, 15, "the stack of the main thread is in the log")
    assert "in handler" in written()
