"""The watchdog in a process of its own: what it takes for wedged, and what ``/healthz`` says meanwhile."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.cli.health import ask

WEDGED_AFTER = 3.0  # seconds
PATIENCE = 20.0  # seconds

# Blocks its main loop for ever when a line comes in.
PROCESS = f"""
import asyncio, sys, time
from consumer.operate.health_server import HealthServer
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard
from consumer.worker.clock import SystemClock
from consumer.worker.control_thread import ControlThread, Watchdog
from consumer.worker.reporting import Pulse

async def main():
    metrics, board, control = Metrics(), StatusBoard(), ControlThread()
    pulse = Pulse(SystemClock(), metrics)
    server = HealthServer(board, metrics, "127.0.0.1", 0)
    control.start()
    await control.spawn(server.start())
    watchdog = control.spawn(Watchdog(lambda: pulse.beats, board, {WEDGED_AFTER}).run())
    asyncio.get_running_loop().add_reader(0, time.sleep, 600)
    print(server.port, flush=True)
    await pulse.run()

asyncio.run(main())
"""


class Watched:
    """The process, and the service manager's socket, which gets a datagram with each tick that found progress."""

    def __init__(self, notify: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._notify = notify
        self.process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def tick(self) -> None:
        """Wait for the next tick. TimeoutError when there is none."""
        assert self._notify.recv(100) == b"WATCHDOG=1"

    def forget_ticks(self) -> None:
        self._notify.setblocking(False)
        try:
            while True:
                self._notify.recv(100)
        except BlockingIOError:
            self._notify.settimeout(PATIENCE)

    def assert_healthy(self) -> None:
        assert ask("127.0.0.1", self.port, PATIENCE) == (0, f"healthy: 127.0.0.1:{self.port}")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        notify.settimeout(PATIENCE)
        with subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            env={"NOTIFY_SOCKET": path, "PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield Watched(notify, process)
            finally:
                process.kill()


def test_a_frozen_process_is_not_wedged_when_it_goes_on(watched: Watched) -> None:
    """SIGSTOP, or a suspended machine: no time at all has passed for the main loop."""
    watched.tick()
    watched.process.send_signal(signal.SIGSTOP)
    time.sleep(2 * WEDGED_AFTER)  # the length of the freeze is what is tested
    watched.forget_ticks()
    watched.process.send_signal(signal.SIGCONT)
    for _ in range(3):
        watched.assert_healthy()
        watched.tick()
    assert watched.process.poll() is None


def test_health_answers_while_the_main_loop_is_blocked_until_the_watchdog_ends_the_process(watched: Watched) -> None:
    watched.tick()
    assert watched.process.stdin is not None
    watched.process.stdin.write(b"block\n")
    watched.process.stdin.flush()
    watched.assert_healthy()
    assert watched.process.wait(PATIENCE) == 70
