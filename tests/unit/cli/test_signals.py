"""What signals mean before and after the daemon can act on them, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

EARLY = """
import os, signal
from consumer.cli import signals

early = signals.quit_early()
for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    os.kill(os.getpid(), signum)
print(sorted(early) == sorted((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)))
asked = []
with signals.tell() as arrived:
    signals.handle(lambda: asked.append("stop"), lambda: asked.append("reload") or "reload", print, early)
    os.kill(os.getpid(), signal.SIGUSR1)
    print(signal.SIGUSR1 in arrived.recv(64))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGHUP)
print(asked)
"""


def test_signals_before_the_daemon_can_act_on_them_are_kept_for_it() -> None:
    """None of them has its default, which is to kill."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "True"
    assert set(lines[1:4]) == {"SIGHUP reload", "SIGUSR1 the state is written to the log", "SIGUSR2 none"}
    assert lines[4:] == [
        "SIGUSR1 the state is written to the log",
        "True",
        "SIGTERM drain",
        "SIGHUP none, the drain goes on",
        "['reload', 'stop']",
    ]
