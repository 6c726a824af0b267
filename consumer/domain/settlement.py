"""How a batch is settled: a pure state machine that says what to do next and is told what came of it.

The rules are those of Lambda's event source mappings, several of them observed on AWS and not what one would guess:

* an error retries the batch; n retries mean n + 1 invocations;
* with ``bisect`` a failing batch of more than one record is split instead, left half first, which spends no retry; each
  half starts with a fresh budget (``[1234] [12] [1] [2] [2] [34]`` when record 2 is poison and one retry is allowed);
* a partial failure settles everything below the lowest failed number; the rest is a *new* batch with a fresh budget
  (``[1234] [234] [234]``); when nothing was settled it counts as an error (``[1234] [234] [2] [2] [34]`` with bisect);
* a retried batch keeps its request id, a new half or rest gets a new one;
* an invocation that never reached user code spends nothing.

Records are settled in stream order: a piece starts only when everything before it in the batch is settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from .outcome import HandlerFault, Outcome
from .shards import DAY
from .stream_record import StreamRecord


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``max_retries`` -1 retries until the record expires; ``max_age`` in seconds or None for no limit before that.
    ``retention``: seconds that the stream keeps a record."""

    max_retries: int = -1
    max_age: float | None = None
    bisect: bool = True
    initial_backoff: float = 0.2
    max_backoff: float = 30.0
    retention: float = DAY

    def backoff(self, failures: int) -> float:
        """Seconds to wait after the n-th failure in a row of the same piece (n >= 1), doubling up to the maximum."""
        return float(min(self.max_backoff, self.initial_backoff * 2.0 ** min(failures - 1, 60)))


Condition = Literal["RetryAttemptsExhausted", "RecordAgeExceeded", "KeyParked"]


class Invoke(msgspec.Struct, frozen=True):
    """Call the handler with ``records``, ``after`` seconds from now. ``attempt`` is 1 for a piece's first call."""

    records: Sequence[StreamRecord]
    attempt: int
    fresh_request: bool
    after: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Send ``records`` to the dead letters; ``invocations`` is Lambda's approximateInvokeCount (at least 1).

    ``KeyParked``, which Lambda does not have: the handler was not asked, because an earlier record of the key is there
    already."""

    records: Sequence[StreamRecord]
    condition: Condition
    invocations: int
    fault: HandlerFault | None
    invoked: bool


Step = Invoke | GiveUp


@dataclass(slots=True)
class _Piece:
    records: Sequence[StreamRecord]
    retries: int = 0
    invocations: int = 0
    failures_in_a_row: int = 0
    fault: HandlerFault | None = None


class Settlement:
    """One batch on its way to being settled: ``next``, then ``answered`` or ``gave_up``, until ``next`` is None."""

    def __init__(self, policy: RetryPolicy, records: Sequence[StreamRecord], born: float = 0.0) -> None:
        """``born`` (Unix seconds; 0 when unknown) is the age of an invocation without records: the final one of a
        tumbling window."""
        self._policy = policy
        self._born = born
        self._pieces = [_Piece(records)]  # a stack: the leftmost piece is last

    def next(self, now: float) -> Step | None:
        """What to do now; None when everything is settled. ``now`` is for record ages, in Unix seconds; at minus
        infinity nothing is too old."""
        if not self._pieces:
            return None
        piece = self._pieces[-1]
        limit = self._policy.max_retries
        if limit >= 0 and piece.retries > limit:  # before any age: a rest of it would get another budget
            return GiveUp(piece.records, "RetryAttemptsExhausted", piece.invocations, piece.fault, invoked=True)
        expired = self._expired(piece, now)
        if expired:
            if expired < len(piece.records):
                self._replace(piece.records[:expired], piece.records[expired:])
                self._pieces[-1].fault, self._pieces[-1].invocations = piece.fault, piece.invocations
                piece = self._pieces[-1]
            return GiveUp(
                piece.records, "RecordAgeExceeded", max(1, piece.invocations), piece.fault, piece.invocations > 0
            )
        wait = self._policy.backoff(piece.failures_in_a_row) if piece.failures_in_a_row else 0.0
        first = piece.invocations == 0
        return Invoke(piece.records, piece.invocations + 1, fresh_request=first, after=wait)

    def answered(self, outcome: Outcome) -> Sequence[StreamRecord]:
        """Record the outcome of the last ``Invoke``; returns the records that are settled by it."""
        piece = self._pieces[-1]
        if outcome.kind == "not_invoked":
            piece.failures_in_a_row += 1
            piece.fault = outcome.fault or piece.fault
            return ()
        piece.invocations += 1
        if outcome.kind == "ok":
            self._pieces.pop()
            return piece.records
        settled = self._lowest_failed(piece, outcome)
        if settled:
            done, rest = piece.records[:settled], piece.records[settled:]
            self._replace(rest)
            return done
        piece.fault = outcome.fault or HandlerFault(
            "reported", "BatchItemFailures", "the handler reported failed records"
        )
        if self._policy.bisect and len(piece.records) > 1:
            half = len(piece.records) // 2
            self._replace(piece.records[:half], piece.records[half:])
        else:
            piece.retries += 1
            piece.failures_in_a_row += 1
        return ()

    def gave_up(self) -> Sequence[StreamRecord]:
        """The records of the last ``GiveUp`` are durable elsewhere; returns them as settled."""
        return self._pieces.pop().records

    @property
    def invocations(self) -> int:
        """How often the records that are being tried were handed over."""
        return self._pieces[-1].invocations if self._pieces else 0

    def try_again(self) -> None:
        """One more attempt at once for the records of the last ``GiveUp``, whose retries are used up."""
        piece = self._pieces[-1]
        piece.retries = max(0, self._policy.max_retries)
        piece.failures_in_a_row = 0

    def keep_current(self) -> int:
        """Forget everything behind the records that are being tried; returns how many these are."""
        del self._pieces[:-1]
        return len(self._pieces[-1].records)

    def continue_from(self, other: Settlement, count: int) -> None:
        """The first ``count`` records of this batch were tried as part of ``other``, which knows how often, and are
        given up now; those behind them are not."""
        records = self._pieces[-1].records
        if count < len(records):
            self._replace(records[:count], records[count:])
        mine, known = self._pieces[-1], other._pieces[-1]
        mine.retries, mine.invocations, mine.fault = known.retries, known.invocations, known.fault

    def _expired(self, piece: _Piece, now: float) -> int:
        """How many leading records are too old (1 for a final invocation that is, which has none). The stream's own
        retention only ends *retries*: a backlog near the trim horizon is still handled once. So is the end of a window:
        its records were handled, and their state must not go to the dead letters unseen."""
        limit = self._policy.max_age
        if piece.invocations > 0:
            retention = self._policy.retention
            limit = min(limit, retention) if limit is not None else retention
        if limit is None:
            return 0
        if not piece.records:
            return 1 if piece.invocations and 0 < self._born < now - limit else 0
        count = 0
        for record in piece.records:
            created = record.created
            if created <= 0 or now - created <= limit:
                break
            count += 1
        return count

    @staticmethod
    def _lowest_failed(piece: _Piece, outcome: Outcome) -> int:
        """Index of the first record that is not settled: the lowest failed one."""
        if outcome.kind != "partial":
            return 0
        failed = set(outcome.failed)
        return next(index for index, record in enumerate(piece.records) if record.sequence_number in failed)

    def _replace(self, *parts: Sequence[StreamRecord]) -> None:
        self._pieces.pop()
        self._pieces.extend(_Piece(part) for part in reversed(parts))
