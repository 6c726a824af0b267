"""What the outside may know about this worker: the bridge from the main loop to the health server's thread.

The main loop publishes a frozen snapshot; the server, on the control thread, reads whatever snapshot is there. One
attribute assignment is atomic in Python, so readers need no lock and can never see half a snapshot.

Health is about this process alone. It fails when the watchdog finds the main loop wedged or a root task died: things
that a restart cures. An AWS outage is neither, and restarting a fleet during one makes it worse. Readiness says whether
anything can work at this moment: it fails also while nothing can be read, so that a deployment stops there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final, Literal

RECENT_ERRORS: Final = 20
_ERROR_LENGTH: Final = 512

StartStep = Literal["config", "lease_table", "first_plan", "first_read"]
_MISSING: Final[Mapping[StartStep, str]] = {
    "config": "the configuration is not loaded yet",
    "lease_table": "the lease table was not reached yet",
    "first_plan": "the first planning cycle is not done yet",
    "first_read": "no shard was read yet",
}
START_STEPS: Final = tuple(_MISSING)


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One lease as this worker sees it. What only the owner knows is None for other workers' shards.

    ``lag`` and ``checkpoint_age`` in seconds, ``in_flight`` in records. ``retrying_keys`` wait for another attempt or
    for their dead letter; records of ``deferred_keys`` wait outside of memory; ``parked_keys`` have letters from it.
    ``breaker`` is closed, probing or open; unless it is closed, ``last_error`` is the type of the handler's last one.
    """

    shard_id: str
    state: str
    owner: str | None = None
    mine: bool = False
    epoch: int = 0
    lag: float | None = None
    in_flight: int | None = None
    retrying_keys: int | None = None
    deferred_keys: int | None = None
    parked_keys: int | None = None
    checkpoint_age: float | None = None
    breaker: str | None = None
    last_error: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """One snapshot of the worker. Times are Unix seconds; ``totals`` are counts since the start of the process.
    ``parked_keys`` of the application, the first of them at ``oldest_parked`` (0 without one)."""

    application: str
    table: str
    incarnation: str
    stream_arn: str = ""
    version: str = ""
    started_at: float = 0.0
    updated_at: float = 0.0
    workers: int = 1
    shards: tuple[ShardStatus, ...] = ()
    parked_keys: int = 0
    oldest_parked: float = 0.0
    totals: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecentError:
    """An ERROR event. ``count`` is how often it came in a row with the same text."""

    at: float
    event: str
    detail: str
    count: int = 1


class StatusBoard:
    """Written by the main loop and the watchdog, read by the health server. Thread-safe.

    The watchdog sets ``wedged``, a line that says why (empty: the main loop is not wedged), and ``progress_age``, the
    seconds since the last progress of the main loop. The main loop sets ``blocked``: why nothing can work at present
    (empty: something can).
    """

    def __init__(self) -> None:
        self.wedged = ""
        self.progress_age = 0.0
        self.blocked = ""
        self._dead: str = ""
        self._steps: frozenset[str] = frozenset()
        self._stopping = False
        self._status: Status | None = None
        self._errors: deque[RecentError] = deque(maxlen=RECENT_ERRORS)
        self._errors_lock = Lock()  # the control thread reports errors too

    # --- the worker's side

    def publish(self, status: Status) -> None:
        """Replace the snapshot."""
        self._status = status

    def task_died(self, name: str, reason: str) -> None:
        """A task that must run for ever has ended: only a restart helps. The first one is kept."""
        self._dead = self._dead or f"task {name} died: {reason}"

    def reached(self, step: StartStep) -> None:
        """One of the steps of the start is done, for good."""
        self._steps |= {step}

    def stopping(self) -> None:
        """Shutdown began: not ready any more, still healthy."""
        self._stopping = True

    def error(self, event: str, detail: str, at: float | None = None) -> None:
        """Remember an error for the status page. Repeats are counted instead of pushing the others out."""
        text = detail if len(detail) <= _ERROR_LENGTH else detail[:_ERROR_LENGTH] + "…"
        with self._errors_lock:
            latest = self._errors[-1] if self._errors else None
            count = 1
            if latest is not None and (latest.event, latest.detail) == (event, text):
                count = latest.count + 1
                self._errors.pop()
            self._errors.append(RecentError(time.time() if at is None else at, event, text, count))

    # --- the readers' side

    @property
    def status(self) -> Status | None:
        return self._status

    @property
    def errors(self) -> tuple[RecentError, ...]:
        """Newest first."""
        with self._errors_lock:
            return tuple(reversed(self._errors))

    def health(self) -> tuple[bool, str]:
        """Whether the process works at all, and a line that says why not."""
        if self._dead:
            return False, self._dead
        wedged = self.wedged  # read once: the watchdog may clear it meanwhile
        if wedged:
            return False, wedged
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        """Whether the start is complete, no shutdown began and something can work, and a line that says what is
        missing."""
        if self._stopping:
            return False, "stopping"
        blocked = self.blocked  # read once: the main loop may clear it meanwhile
        for step, missing in _MISSING.items():
            if step not in self._steps:
                return False, (blocked or missing) if step == "first_read" else missing
        return (False, blocked) if blocked else (True, "ready")
