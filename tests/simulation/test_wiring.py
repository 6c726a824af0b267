"""The simulated process is wired as the composition root wires the real one."""

from __future__ import annotations

from consumer.testing import simulated_worker
from consumer.worker import app


def test_the_constants_are_those_of_the_daemon() -> None:
    for name in ("START_DEADLINE", "DRAIN_SHARE", "HARD_STOP_MARGIN"):
        assert getattr(simulated_worker, name) == getattr(app, name)
