"""Signals to a daemon: what drains, what does not shorten a drain, and a daemon that is process 1."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import ALONE, Fleet, Worker, duplicates, wait_until
from tests.e2e.hurt import has_event

SLOW: dict[str, str] = {"HANDLER_SECONDS": "3"}
AGAIN = (signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
STARTS_STRANGERS = '''
import os, subprocess, sys, time

def handler(event, context):
    """Leaves processes behind whose parent is gone: one that ends soon, and one that lives on in its own session."""
    for program in ("pass", "import time; time.sleep(600)"):
        middle = os.fork()
        if middle == 0:
            subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
            os._exit(0)
        os.waitpid(middle, 0)
    assert subprocess.run(["sh", "-c", "exit 7"]).returncode == 7
    if context.attempt == 1:
        os._exit(5)
'''


@pytest.fixture(autouse=True)
def _hangups_arrive() -> Iterator[None]:
    """Also when the tests run under nohup, whose children ignore SIGHUP, as the daemon then does."""
    before = signal.getsignal(signal.SIGHUP)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def _at_work(aws: Aws, fleet: Fleet, worker: Worker) -> set[tuple[str, int]]:
    """Records are being handled, for three seconds."""
    written = aws.write(fleet.table, 1, range(1, 2))
    fleet.wait_for(written, 20)
    return written


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_nothing_shortens_the_drain_and_all_of_it_is_logged(aws: Aws, fleet: Fleet, first: signal.Signals) -> None:
    worker = fleet.start("w", SLOW)
    _at_work(aws, fleet, worker)
    for signum in (signal.SIGUSR1, first, *AGAIN):
        count = len([one for one in worker.events() if one["event"] == "signal.received"])
        worker.send(signum)
        wait_until(
            lambda before=count: len([e for e in worker.events() if e["event"] == "signal.received"]) > before,
            10,
            f"{signum.name} is logged",
        )
    assert worker.wait(20) == 0
    arrived = [(one["signal"], one["effect"]) for one in worker.events() if one["event"] == "signal.received"]
    assert arrived == [
        ("SIGUSR1", "the state is written to the log"),
        (first.name, "drain"),
        *((signum.name, "none, the drain goes on") for signum in AGAIN),
    ]
    assert has_event(worker, "daemon.stopped")
    fleet.start("next")
    fleet.wait_for(aws.write(fleet.table, 1, range(2, 3)), 20)
    assert duplicates(fleet.journal()) == 0


def test_a_second_ctrl_c_at_a_terminal_ends_at_once(aws: Aws, fleet: Fleet) -> None:
    """Who sits there has seen what it does, and wants it to end."""
    master, terminal = pty.openpty()
    worker = fleet.start("w", {"HANDLER_SECONDS": "60"}, stdin=terminal, handler=_patient(fleet))
    os.close(terminal)
    try:
        _at_work(aws, fleet, worker)
        for signum in (signal.SIGINT, signal.SIGTERM):
            worker.send(signum)
        wait_until(lambda: has_event(worker, "daemon.stopping"), 10, "it drains")
        assert worker.process.poll() is None
        worker.send(signal.SIGINT)
        assert worker.wait(5) == 128 + signal.SIGINT
    finally:
        os.close(master)


def test_a_daemon_whose_terminal_is_closed_drains(aws: Aws, fleet: Fleet) -> None:
    """With a terminal SIGHUP reloads; the one that comes with its end is no wish for that."""
    master, terminal = pty.openpty()
    worker = fleet.start("w", SLOW, stdin=terminal)
    os.close(terminal)
    _at_work(aws, fleet, worker)
    wait_until(lambda: worker.status()["ready"], 30, "its start is complete")
    worker.send(signal.SIGHUP)
    wait_until(lambda: has_event(worker, "config.reloaded"), 10, "it reloads")
    os.close(master)
    worker.send(signal.SIGHUP)
    assert worker.wait(20) == 0
    arrived = [(one["signal"], one["effect"]) for one in worker.events() if one["event"] == "signal.received"]
    assert arrived == [("SIGHUP", "reload"), ("SIGHUP", "drain")]


def _patient(fleet: Fleet) -> dict[str, Any]:
    return {**fleet.config()["handler"], "timeout": "60s"}


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(aws: Aws, fleet: Fleet) -> None:
    """As under nohup."""
    worker = fleet.start("w", under=("sh", "-c", 'trap "" HUP; exec "$@"', "sh"))
    _at_work(aws, fleet, worker)
    worker.send(signal.SIGHUP)
    fleet.wait_for(aws.write(fleet.table, 1, range(2, 3)), 20)
    worker.send(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert [one["signal"] for one in worker.events() if one["event"] == "signal.received"] == ["SIGTERM"]


@pytest.fixture
def alone() -> tuple[str, ...]:
    """What gives a process a PID namespace of its own, if this machine allows that."""
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces for this user here")
    return ALONE


def _namespace(worker: Worker) -> dict[int, tuple[str, str]]:
    """The processes in the namespace of a daemon: pid there to state and command line."""
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    mine = Path(f"/proc/{children[0]}/ns/pid").readlink()
    found: dict[int, tuple[str, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns/pid").readlink() != mine:
                continue
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        found[int(lines["NSpid"].split()[-1])] = (lines["State"].split()[0], command)
    return found


def test_process_1_reaps_strangers_and_steals_nothing(
    aws: Aws, fleet: Fleet, tmp_path: Path, alone: tuple[str, ...]
) -> None:
    """Orphans of handlers end up as children of process 1. The handler gets the exit status of what it starts itself,
    and the daemon that of its handler processes."""
    (tmp_path / "strangers.py").write_text(STARTS_STRANGERS)
    handler = {"target": "strangers:handler", "path": str(tmp_path)}
    worker = fleet.start("w", under=alone, handler=handler, retry={"max_retry_attempts": 5})
    aws.write(fleet.table, 3, range(1, 4))
    wait_until(lambda: any(s["in_flight"] == 0 for s in worker.owned()), 20, "it has its shards")
    wait_until(
        lambda: worker.metric('stream_consumer_records_total{result="handled"}') == 9, 30, "all records are handled"
    )
    crashes = [one["error"] for one in worker.events() if one["event"] == "batch.failed"]
    assert crashes
    assert all("exit status 5" in error for error in crashes)
    assert worker.metric("stream_consumer_dead_letters_total") == 0
    wait_until(lambda: not [one for one in _namespace(worker).values() if one[0] == "Z"], 10, "no zombie is left")
    processes = _namespace(worker)
    assert sys.executable in processes[1][1]
    for signum in (signal.SIGTERM, signal.SIGTERM):
        _to_process_1(worker, signum)
    assert worker.wait(20) == 0
    assert has_event(worker, "daemon.stopped")


def test_process_1_ends_with_the_exit_status_of_the_daemon(fleet: Fleet, alone: tuple[str, ...]) -> None:
    worker = fleet.start("w", under=alone, source={"table": "no-such-table"})
    assert worker.wait(30) == 78


def test_process_1_says_so_when_the_daemon_is_killed(aws: Aws, fleet: Fleet, alone: tuple[str, ...]) -> None:
    """As the memory killer does."""
    worker = fleet.start("w", under=alone)
    wait_until(worker.status, 20, "it runs")
    (inner,) = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    (daemon,) = Path(f"/proc/{inner}/task/{inner}/children").read_text().split()
    os.kill(int(daemon), signal.SIGKILL)
    assert worker.wait(10) == 128 + signal.SIGKILL


def _to_process_1(worker: Worker, signum: int) -> None:
    (inner,) = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    os.kill(int(inner), signum)
