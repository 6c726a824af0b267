"""What one handler has to see of one shard, and what of it is settled: filters, retry policy, frontier and window.

A reader offers its pages to a subscription; what the subscription accepts goes to the handler, and everything else is
settled at once. Only what is settled here may ever be checkpointed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from consumer.domain.batching import Entry, PageHold
from consumer.domain.frontier import MAX_RUNS_BYTES, Frontier, FrontierSnapshot, SettledFilter
from consumer.domain.keys import partition_key_reader
from consumer.domain.record import Record
from consumer.domain.windows import TumblingWindow, WindowState
from consumer.worker.context import WorkerContext


class Subscription:
    """One handler's part of one shard, from the frontier that its previous owner left.

    ``unsaved`` is set when something has to be stored, ``settled`` when records were settled or a batch has ended:
    each has one waiting task, which clears it. ``window`` is the open tumbling window; None without the feature.
    """

    def __init__(self, context: WorkerContext, resume_from: FrontierSnapshot) -> None:
        self.retry_policy = context.retry_policy
        self.frontier = Frontier(resume_from)
        self.window: TumblingWindow | None = None
        self.unsaved = asyncio.Event()
        self.settled = asyncio.Event()
        self.newest_settled_time = 0.0  # creation time (Unix seconds) of the newest record settled; 0: none yet
        self.tip_seen_at = 0.0  # when the request was sent that found nothing more to read; 0: there is more
        self._filters = context.filters or None
        self._start_at = context.start_at
        self._metrics = context.metrics
        self._exact = context.settings.idempotency.mode != "off"
        self._settled_before = SettledFilter(resume_from)
        self._key_of = partition_key_reader(context.stream.partition_key)

    @property
    def outstanding(self) -> int:
        """Records fetched but not settled."""
        return self.frontier.outstanding

    @property
    def version(self) -> int:
        """Grows whenever something that has to be stored has changed."""
        return self.frontier.version + (self.window.version if self.window is not None else 0)

    @property
    def window_state(self) -> WindowState | None:
        """What is to be stored of the tumbling window; None without the feature."""
        return self.window.durable if self.window is not None else None

    def snapshot(self, max_runs_bytes: int = MAX_RUNS_BYTES) -> FrontierSnapshot:
        """What is settled. With ``idempotency.mode: off`` it is the low watermark alone, as the KCL keeps it."""
        snapshot = self.frontier.snapshot(max_runs_bytes)
        return snapshot if self._exact else replace(snapshot, runs=())

    def accept(self, records: Sequence[Record], hold: PageHold) -> list[Entry]:
        """Track the records of a page, in stream order, and return those that the handler has to see; ``hold`` then
        counts them. ValueError when a record is not after the one before it."""
        positions = self.frontier.track([record.dynamodb.SequenceNumber for record in records])
        entries, skipped = self._entries(records, positions, hold)
        hold.left = len(entries)
        if skipped:
            self.frontier.settle(skipped)
        self.unsaved.set()  # also the first record that is read is stored
        return entries

    def _entries(self, records: Sequence[Record], positions: range, hold: PageHold) -> tuple[list[Entry], list[int]]:
        """What is to be handled, and the positions of what is settled by being skipped."""
        key_of, filters = self._key_of, self._filters
        top, start_at = self._settled_before.top, self._start_at
        check_settled = int(records[0].dynamodb.SequenceNumber) <= top
        if not check_settled and start_at is None and filters is None:  # as usual: 0.9 us a record instead of 1.5
            return [Entry(p, key_of(r), r, hold) for p, r in zip(positions, records, strict=True)], []
        entries: list[Entry] = []
        skipped: list[int] = []
        duplicates = too_old = 0
        for position, record in zip(positions, records, strict=True):
            change = record.dynamodb
            if check_settled and int(change.SequenceNumber) in self._settled_before:
                duplicates += 1
                skipped.append(position)
            elif start_at is not None and 0 < change.ApproximateCreationDateTime < start_at:  # 0: unknown
                skipped.append(position)
                too_old += 1
            elif filters is not None and not filters.matches(record):
                skipped.append(position)
            else:
                entries.append(Entry(position, key_of(record), record, hold))
        if skipped:
            self._metrics.duplicates_skipped.inc(duplicates)
            self._metrics.records("before_start").inc(too_old)
            self._metrics.filtered.inc(len(skipped) - duplicates - too_old)
        return entries, skipped

    def settle(self, entries: Sequence[Entry], result: str) -> None:
        """These records are handled, or durable at the dead letters (``result`` as in ``records_total``)."""
        self.frontier.settle([entry.position for entry in entries])
        hold, count = entries[0].hold, 0
        for entry in entries:  # a call a page, not a call a record
            if entry.hold is not hold:
                hold.release(count)
                hold, count = entry.hold, 0
            count += 1
        hold.release(count)
        newest = entries[-1].record.dynamodb.ApproximateCreationDateTime
        self.newest_settled_time = max(self.newest_settled_time, newest)
        self._metrics.records(result).inc(len(entries))
        self._metrics.in_flight_records.dec(len(entries))
        self.unsaved.set()
        self.settled.set()
