"""What a fleet asks of AWS in a second, by its settings: for estimates of what a month costs.

A model, not a measurement: records come evenly over the shards and by chance in time (as a Poisson process), nothing
fails but what is said to, and nothing is behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from .polling import EARLY, GROWTH, MOST_READS, WATCHED, Pauses
from .reading_pace import LEASE_BYTES, READ_BUDGET, REGULAR_ROUNDS, SESSION_BYTES, UNIT_BYTES
from .source_format import ReadingLimits

LOOKS_EVERY: Final = 1.0  # seconds: a worker reads the bulletin and the sessions so often
LAMBDA_POLLS: Final = 4.0  # a second and shard
MESSAGE_BYTES: Final = 64 * 1024  # of one billed request of SQS
LETTER_FRAME: Final = 2048  # bytes of a dead letter around its record


@dataclass(frozen=True, slots=True)
class Fleet:
    """``shards`` are open ones, ``rate`` is in records a second over all of them, ``record_bytes`` of one record."""

    shards: int
    workers: int
    rate: float
    record_bytes: int
    letters_a_month: float = 0.0

    @property
    def rate_of_shard(self) -> float:
        return self.rate / self.shards


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings that decide how often AWS is asked. Seconds; ``renewals`` of a session in one ``lease_duration``."""

    reading: ReadingLimits
    target_latency: float
    idle_backoff_max: float
    max_records: int
    checkpoint_interval: float
    lease_duration: float
    renewals: int

    @property
    def pauses(self) -> Pauses:
        """Near the tip of a shard."""
        return Pauses.of(self.reading, self.target_latency, self.idle_backoff_max)


@dataclass(frozen=True, slots=True)
class Requests:
    """A second, of the whole fleet. Reads and writes of the lease table in billed units."""

    get_records: float
    checkpoints: float
    renewals: float
    looks: float
    lease_rows: float


def requests(fleet: Fleet, pace: Pace) -> Requests:
    """What the fleet asks for."""
    sessions = math.ceil(max(1, fleet.workers * SESSION_BYTES) / UNIT_BYTES)
    rows = math.ceil(max(1, fleet.shards * LEASE_BYTES) / UNIT_BYTES)
    readings = fleet.workers * rows / (pace.lease_duration / 2)
    return Requests(
        get_records=fleet.shards * reads_of_shard(fleet.rate_of_shard, fleet.record_bytes, pace),
        checkpoints=fleet.shards * checkpoints_of_shard(fleet.rate_of_shard, pace.checkpoint_interval),
        renewals=fleet.workers * pace.renewals / pace.lease_duration,
        looks=fleet.workers * (1 + sessions) / min(LOOKS_EVERY, pace.lease_duration / 10),
        lease_rows=min(readings, READ_BUDGET / REGULAR_ROUNDS) if fleet.workers > 1 else readings,
    )


def reads_of_shard(rate: float, record_bytes: int, pace: Pace) -> float:
    """GetRecords a second of one shard whose worker has learned (``polling.py``)."""
    limits, pauses = pace.reading, pace.pauses
    fullest = max(1.0, min(pace.max_records, limits.page_bytes / max(1, record_bytes)))
    if _is_watched(rate, pauses):
        pause = pauses.expecting(rate)
        watched = WATCHED if rate * pause < 1.0 else 1.0  # where each read finds records, there is no other time
        often = watched / pause + (1.0 - watched) / pauses.longest
    else:
        often = rate * _growing(pauses) + 1.0 / pauses.longest
    return max(often, rate / fullest)


def read_within(rate: float, pace: Pace) -> float:
    """Seconds in which 95 of 100 records of a shard are read that comes to rest between them."""
    pauses = pace.pauses
    return pauses.expecting(rate) if _is_watched(rate, pauses) else WATCHED * pauses.longest


def _is_watched(rate: float, pauses: Pauses) -> bool:
    return rate * pauses.target * MOST_READS >= 1.0


def _growing(pauses: Pauses) -> float:
    """Reads after a record in pauses that grow, above those of the longest pause in the same time."""
    reads = age = 0.0
    while (pause := max(EARLY * pauses.target, GROWTH * age)) < pauses.longest:
        age += pause
        reads += 1.0
    return reads - age / pauses.longest


def checkpoints_of_shard(rate: float, interval: float) -> float:
    """Writes a second. Between two there is an ``interval``, and then the wait for a record if none came in it."""
    return 1.0 / (interval + math.exp(-rate * interval) / rate) if rate > 0 else 0.0


def lambda_invocations(fleet: Fleet, batch_size: int, batching_window: float) -> float:
    """Invocations a second of a Lambda event source mapping of the same stream: it gathers what comes between two of
    its polls, or in its window."""
    gathered = fleet.rate_of_shard * max(batching_window, 1.0 / LAMBDA_POLLS)
    return fleet.rate / max(1.0, min(float(batch_size), gathered)) if fleet.rate > 0 else 0.0


def message_requests(record_bytes: int) -> int:
    """Billed requests of one dead letter with one record."""
    return math.ceil((record_bytes + LETTER_FRAME) / MESSAGE_BYTES)
