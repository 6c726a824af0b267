"""What the outside may know about this worker: the bridge from the main loop to the health server's thread.

The main loop publishes a frozen snapshot; the server, on the control thread, reads whatever snapshot is there. One
attribute assignment is atomic in Python, so readers need no lock and can never see half a snapshot.

Health is about this process alone. It fails when the watchdog finds the main loop wedged or a root task died: things
that a restart cures. An AWS outage is neither, and restarting a fleet during one makes it worse. Readiness says whether
anything can work at this moment: it fails also while nothing can be read, so that a deployment stops there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from threading import Lock
from typing import Final, Literal

from consumer.operate.error_groups import ErrorGroup, ErrorGroups, ErrorReport
from consumer.operate.history import History, Past

StartStep = Literal["config", "lease_table", "first_plan", "first_read"]
_MISSING: Final[Mapping[StartStep, str]] = {
    "config": "the configuration is not loaded yet",
    "lease_table": "the lease table was not reached yet",
    "first_plan": "the first planning cycle is not done yet",
    "first_read": "no shard was read yet",
}
START_STEPS: Final = tuple(_MISSING)

SlowReason = Literal[
    "breaker",
    "paused",
    "parked_full",
    "denied",
    "throttled",
    "read_fails",
    "destination",
    "room",
    "place",
    "slot",
    "retrying",
    "deferred",
    "handing_over",
    "reading",
]
SLOW: Final[Mapping[SlowReason, str]] = {
    "breaker": "the breaker is open: most of what is tried fails",
    "paused": "so many keys fail that nothing new is started",
    "parked_full": "as many keys are parked as there may be",
    "denied": "AWS does not allow to read it",
    "throttled": "AWS throttles its reads",
    "read_fails": "reading it fails",
    "destination": "dead letters are refused by the destination",
    "room": "it waits for room in limits.buffer",
    "place": "all processes of the handler are busy",
    "slot": "all slots (batch.parallelization_factor) are busy",
    "retrying": "keys wait for a retry",
    "deferred": "deferred keys are read again",
    "handing_over": "the lease is being handed over",
    "reading": "it reads what has come meanwhile",
}
"""Why a shard is behind, worst first: the first that holds is published."""


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One lease as this worker sees it. What only the owner knows is None for other workers' shards.

    ``lag``, ``headroom`` (until the oldest unsettled record is trimmed) and ``checkpoint_age`` in seconds,
    ``in_flight`` in records. ``retrying_keys`` wait for another attempt or for their dead letter; records of
    ``deferred_keys`` wait outside of memory; ``parked_keys`` have letters from it. ``failing_for``: seconds for which a
    key, or a batch, has failed without a record getting through; None without one. ``breaker`` is closed, probing or
    open; unless it is closed and nothing fails, ``last_error`` is the type of the handler's last one. ``slow_because``
    is a key of SLOW.
    ``read_rate`` in records a second. ``hot_key`` is the digest of the key with the most records of late, and
    ``hot_key_share`` (0 to 1) its part of the shard's.
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
    parents: tuple[str, ...] = ()
    headroom: float | None = None
    slow_because: SlowReason | None = None
    read_rate: float | None = None
    hot_key: str | None = None
    hot_key_share: float | None = None
    failing_for: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker of the fleet, as its session row says. ``started_at`` in Unix seconds; 0 and an empty ``version``:
    unknown. ``capacity`` is the most leases it takes; 0 without a limit. ``failing``: shards of it with a key that
    fails again and again, some of them."""

    incarnation: str
    mine: bool = False
    leases: int = 0
    version: str = ""
    started_at: float = 0.0
    leaving: bool = False
    capacity: int = 0
    failing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key that does not simply go on: its digest, and since when (Unix seconds, 0 when unknown): the creation of
    its first record that waits, or its parking."""

    digest: str
    state: Literal["retrying", "deferred", "parked"]
    shard_id: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """One snapshot of the worker. Times are Unix seconds, by the clock of AWS; ``totals`` are counts since the process
    began.

    ``parked_keys`` of the application, the first of them at ``oldest_parked`` (0 without one). ``finished`` shards, the
    newest ones, each with its parents, of ``finished_count``. ``free_leases`` could be worked on and have no owner, the
    first of them for ``free_for`` seconds. ``letters_waiting`` are dead letters that were refused so far,
    ``dead_letter_backlog`` those that lie at the destination, about; None when that is not known.
    ``clock_ahead``: by how many seconds this machine's clock is ahead of AWS. ``credentials_end``: None without an end.
    ``iterator_age``: by how many seconds the reading of this worker's shards is behind, at most; a key that fails does
    not count. ``endless_retries``: no record is ever given up. ``changed_settings``: what differs from the defaults, as
    printed.
    """

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
    fleet: tuple[WorkerStatus, ...] = ()
    keys: tuple[KeyStatus, ...] = ()
    finished: tuple[tuple[str, tuple[str, ...]], ...] = ()
    finished_count: int = 0
    free_leases: int = 0
    free_for: float = 0.0
    letters_waiting: int = 0
    dead_letter_backlog: int | None = None
    iterator_age: float = 0.0
    clock_ahead: float = 0.0
    credentials_end: float | None = None
    endless_retries: bool = False
    history: Past = Past()
    changed_settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def reported_at(self) -> float:
        """``updated_at`` by this machine's clock, which its log and the times of errors have."""
        return self.updated_at + self.clock_ahead

    @property
    def lag(self) -> float:
        """Of the worst shard of this worker, in seconds."""
        lags = [shard.lag for shard in self.shards if shard.lag is not None]
        return max(filter(isfinite, lags), default=0.0)


class StatusBoard:
    """Written by the main loop and the watchdog, read by the health server. Thread-safe.

    The watchdog sets ``wedged``, a line that says why (empty: the main loop is not wedged), and ``progress_age``, the
    seconds since the last progress of the main loop. The main loop sets ``blocked``: why nothing can work at present
    (empty: something can), and keeps the ``history``. ``show_errors``: also the texts of errors, which may hold data of
    items. ``config_file``: its path, for commands that are shown; empty when there is none.
    """

    def __init__(self, *, show_errors: bool = False, config_file: str = "") -> None:
        self.config_file: Final = config_file
        self.wedged = ""
        self.progress_age = 0.0
        self.blocked = ""
        self.history = History()
        self._dead: str = ""
        self._steps: frozenset[str] = frozenset()
        self._stopping = False
        self._status: Status | None = None
        self._errors = ErrorGroups(keep_texts=show_errors)
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

    def error(self, report: ErrorReport, at: float | None = None) -> None:
        """Remember an error for the status page, with others of its kind."""
        with self._errors_lock:
            self._errors.add(report, time.time() if at is None else at)

    # --- the readers' side

    @property
    def status(self) -> Status | None:
        return self._status

    @property
    def errors(self) -> tuple[ErrorGroup, ...]:
        """The last one first."""
        with self._errors_lock:
            return self._errors.groups

    @property
    def started(self) -> bool:
        """Whether every step of the start was done."""
        return self._steps.issuperset(_MISSING)

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
