"""What one handler has to see of one shard, and what of it is settled: filters, frontier, deferred keys and window.

A reader offers its pages to a subscription; what the subscription accepts goes to the handler, and everything else is
settled at once. Only what is settled here may ever be checkpointed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count

from consumer.domain.batching import Entry, PageHold
from consumer.domain.completeness import Completeness
from consumer.domain.creation_times import CreationTimes
from consumer.domain.deferred import DeferredKeys, digest_of
from consumer.domain.frontier import Frontier, FrontierSnapshot, SettledFilter
from consumer.domain.heavy_hitters import HeavyHitters
from consumer.domain.replay_start import ReplayStart, StartRule
from consumer.domain.stream_record import StreamRecord
from consumer.domain.windows import TumblingWindow, WindowState
from consumer.worker.context import WorkerContext
from consumer.worker.memory_budget import BudgetAccount
from consumer.worker.shard.seen_versions import SeenVersions

_FIRST_READ_AGAIN = -(1 << 62)  # positions of records that the books do not track: negative, and in their order


class Subscription:
    """One handler's part of one shard, from the frontier that its previous owner left.

    ``unsaved`` is set when something has to be stored, ``settled`` when records were settled or a batch has ended:
    each has one waiting task, which clears it; ``may_catch_up`` likewise when a deferred key may be read again.
    ``seen`` remembers versions of items, and ``complete`` when the shard was complete, for sources that need it.
    ``hot_keys`` counts the keys of what the handler is to see.
    ``start`` says what is older than the start of the shard, which a ``replay`` may have moved.
    ``window`` is the open tumbling window; None without the feature. ``account`` pays for the records and the books.
    """

    def __init__(
        self,
        context: WorkerContext,
        resume_from: FrontierSnapshot,
        account: BudgetAccount,
        replay: ReplayStart | None = None,
    ) -> None:
        self._context = context
        self.frontier = Frontier(resume_from)
        self.deferred = DeferredKeys(resume_from.deferred, context.bounds.deferred_keys)
        self.window: TumblingWindow | None = None
        self.unsaved = asyncio.Event()
        self.settled = asyncio.Event()
        self.may_catch_up = asyncio.Event()
        self.tip_seen_at = 0.0  # when the request was sent that found nothing more to read; 0: there is more
        self.hot_keys = HeavyHitters()
        self._created = CreationTimes()
        self.start = StartRule(context.start_at, replay)
        self._metrics = context.metrics
        # Keys that wait are not waited for by the others, although the order is another one by now.
        self._by_key = context.settings.batch.order == "key" or bool(resume_from.deferred)
        self._exact = context.settings.idempotency.mode != "off"
        self._settled_before = SettledFilter(resume_from)
        self._key_of = context.stream.format.key_of
        self._runs_bytes = context.stream.format.runs_bytes
        self.seen: SeenVersions | None = None
        if context.versions is not None:
            self.seen = SeenVersions(context.versions, context.metrics, self.deferred, context.filters.table)
        names_trims = context.stream.format.names_trims
        self.complete = None if names_trims else Completeness(resume_from.complete_at, resume_from.kept_for)
        self._position_read_again = count(_FIRST_READ_AGAIN).__next__
        self.account = account
        self._charged = 0

    @property
    def in_order(self) -> bool:
        """Whether nothing of the shard may overtake a failing batch."""
        return self.window is not None or not self._by_key

    @property
    def outstanding(self) -> int:
        """Records tracked in the books but not settled."""
        return self.frontier.outstanding

    @property
    def has_read_known(self) -> bool:
        """Whether everything that was settled before the last restart has been read again."""
        return self.frontier.newest >= self._settled_before.top

    @property
    def held(self) -> int:
        """Records that were read and are not settled."""
        return self.frontier.outstanding + self.deferred.in_memory

    @property
    def version(self) -> int:
        """Grows whenever something that has to be stored has changed."""
        others = (self.window, self.complete)
        return self.frontier.version + self.deferred.version + sum(one.version for one in others if one is not None)

    @property
    def window_state(self) -> WindowState | None:
        """What is to be stored of the tumbling window; None without the feature."""
        return self.window.durable if self.window is not None else None

    def oldest_unsettled(self) -> float:
        """Creation time (Unix seconds) of the oldest record that was read or deferred and is not settled, or up to a
        second earlier; 0 when there is none, or unknown."""
        deferred = self.deferred.oldest()
        if not self.frontier.outstanding:
            return deferred
        tracked = self._created.at(self.frontier.oldest)
        return min(tracked, deferred) if tracked and deferred else tracked or deferred

    def snapshot(self, max_runs_bytes: int | None = None) -> FrontierSnapshot:
        """What is settled. With ``idempotency.mode: off`` it is the low watermark alone, as the KCL keeps it."""
        most = self._runs_bytes if max_runs_bytes is None else max_runs_bytes
        snapshot = self.frontier.snapshot(most, self.deferred.snapshot())
        if self.complete is not None:
            snapshot = replace(snapshot, complete_at=self.complete.at, kept_for=self.complete.kept_for)
        return snapshot if self._exact else replace(snapshot, runs=())

    def tip_seen(self, asked_at: float, retention: float) -> None:
        """A read that was sent at ``asked_at`` (Unix seconds) found nothing more. ``retention``: of records, now."""
        self.tip_seen_at = asked_at
        if self.complete is not None and not self.frontier.outstanding:
            before = self.complete.version
            self.complete.seen(asked_at, retention)
            if self.complete.version != before:
                self.unsaved.set()

    # --- what the reader offers --------------------------------------------------------------------------

    def accept(self, records: Sequence[StreamRecord], hold: PageHold) -> list[Entry]:
        """Track the records of a page, in stream order, and return those that the handler has to see; ``hold`` then
        counts them. ValueError when a record is not after the one before it."""
        numbers = [record.number for record in records]
        positions = self.frontier.track(numbers)
        self._created.add(positions.start, [record.created for record in records])
        entries, skipped = self._entries(records, positions, hold)
        hold.left = len(entries)
        self.hot_keys.add([entry.key for entry in entries], len(entries))
        if skipped:
            self.frontier.settle(skipped, [numbers[position - positions.start] for position in skipped])
        self._charge_books()
        self.unsaved.set()  # also the first record that is read is stored
        return entries

    def _entries(
        self, records: Sequence[StreamRecord], positions: range, hold: PageHold
    ) -> tuple[list[Entry], list[int]]:
        """What is to be handled, and the positions of what is settled by being skipped."""
        key_of, filters, deferred = self._key_of, self._context.filters or None, self.deferred
        top, start, seen = self._settled_before.top, self.start, self.seen
        check_settled = int(records[0].number) <= top
        plain = start.takes_all and filters is None and seen is None
        if plain and not check_settled and not deferred:  # 0.9 us instead of 1.5
            return [Entry(p, key_of(r), r, hold) for p, r in zip(positions, records, strict=True)], []
        entries: list[Entry] = []
        skipped: list[int] = []
        duplicates = too_old = filtered = 0
        for position, record in zip(positions, records, strict=True):
            key = key_of(record)
            if deferred and (digest := digest_of(key)) in deferred and not deferred.has_met(digest):
                skipped.append(position)
                if not deferred.drops(digest, int(record.number), record.created):
                    duplicates += 1
                continue
            # Also what is settled is remembered: an older version of its item may follow.
            superseded = seen is not None and seen.is_superseded(record, key)
            if check_settled and int(record.number) in self._settled_before:
                duplicates += 1
                skipped.append(position)
            elif not start.takes_all and start.leaves_out(record):
                skipped.append(position)
                too_old += 1
            elif superseded:
                skipped.append(position)
            elif filters is not None and not filters.matches(record):
                skipped.append(position)
                filtered += 1
            else:
                entries.append(Entry(position, key, record, hold))
        if skipped:
            self._metrics.duplicates_skipped.inc(duplicates)
            self._metrics.records("before_start").inc(too_old)
            self._metrics.filtered.inc(filtered)
        return entries, skipped

    def settle(self, entries: Sequence[Entry], result: str | None) -> None:
        """These records are handled, or durable at the dead letters (``result`` as in ``records_total``; None: they
        were so before); in the order of their positions."""
        tracked = entries
        if self.deferred:  # of a batch whose call never ran a key in the middle may have been deferred meanwhile
            tracked = [entry for entry in entries if entry.position >= 0]
            if len(tracked) < len(entries):
                self._settle_read_again([entry for entry in entries if entry.position < 0])
        if tracked:
            self.frontier.settle([entry.position for entry in tracked], NumbersOf(tracked))
        _release(entries)
        if result is not None:
            self._metrics.records(result).inc(len(entries))
        self._metrics.in_flight_records.dec(len(entries))
        self._charge_books()  # an idle shard reads no page that would give back what they took
        self.unsaved.set()
        self.settled.set()

    # --- deferred keys -----------------------------------------------------------------------------------

    def changed(self) -> None:
        """The list of deferred keys is another one."""
        self._charge_books()
        self.unsaved.set()
        self.settled.set()

    def is_deferred(self, key: bytes) -> bool:
        """Whether only the list of deferred keys speaks of the records of this key."""
        digest = digest_of(key)
        return digest in self.deferred and not self.deferred.has_met(digest)

    def deferrable(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of ``keys`` for which the list of deferred keys has an entry, or room."""
        room, found = self.deferred.room, []
        for key in keys:
            known = digest_of(key) in self.deferred
            if known or room > 0:
                found.append(key)
                room -= not known
        return found

    def defer(self, key: bytes, kept: Sequence[Entry], dropped: Sequence[Entry]) -> None:
        """Leave the records of a failing key to its entry in the list of deferred keys: ``kept``, its oldest ones, stay
        in memory, ``dropped`` are read again later."""
        digest, head = digest_of(key), kept[0].record
        left = [entry for entry in (*kept, *dropped) if entry.position >= 0]
        self.frontier.settle([entry.position for entry in left], NumbersOf(left))
        self.deferred.defer(
            digest,
            head.number,
            head.created,
            in_memory=len(kept),
            size=sum(entry.hold.charged for entry in kept),
        )
        for entry in kept:
            if entry.position >= 0:
                entry.position = self._position_read_again()
        if dropped:
            _release(dropped)
            self._metrics.in_flight_records.dec(len(dropped))
        self.changed()

    def accept_again(self, record: StreamRecord, hold: PageHold) -> tuple[Entry, str] | None:
        """The entry of a record that was read again, with its key's digest, if it is of a deferred key in the pass and
        not settled. It is copied out of its page, which ``hold`` is a part of."""
        key = self._key_of(record)
        digest = digest_of(key)
        if not self.deferred.is_wanted(digest, int(record.number)):
            if self.seen is not None:
                self.seen.remember_again(record, key, own=True)
            return None
        if not self.start.takes_all and self.start.leaves_out(record):
            return None
        if self.seen is not None and self.seen.is_superseded(record, key):
            return None
        filters = self._context.filters
        if filters and not filters.matches(record):
            return None
        entry = Entry(self._position_read_again(), key, record, hold)
        hold.left += 1
        self.deferred.takes(digest, entry.copy_out())
        return entry, digest

    def _settle_read_again(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            record = entry.record
            self.deferred.settled(digest_of(entry.key), record.number, record.created, entry.hold.charged)
        self.may_catch_up.set()

    def _charge_books(self) -> None:
        """The books count against ``limits.buffer``, too."""
        size = self.frontier.size + self.deferred.size
        if size > self._charged:
            self.account.charge(size - self._charged)
        elif size < self._charged:
            self.account.release(self._charged - size)
        self._charged = size


class NumbersOf:
    """The numbers of entries; looked up one by one, since only few are wanted."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __getitem__(self, place: int) -> str:
        return self._entries[place].record.number


def _release(entries: Sequence[Entry]) -> None:
    hold, count = entries[0].hold, 0
    for entry in entries:  # a call a page, not a call a record
        if entry.hold is not hold:
            hold.release(count)
            hold, count = entry.hold, 0
        count += 1
    hold.release(count)
