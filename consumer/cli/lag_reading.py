"""Measures the lag of shards from outside: one record behind each checkpoint is read, nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from consumer.cli.reach import Reach
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    PermissionDenied,
    ResourceMissing,
    TrimmedData,
)
from consumer.domain.lease import LeaseRow
from consumer.domain.outside_lag import ShardLag
from consumer.domain.replay_start import StartRule
from consumer.domain.shards import may_start
from consumer.ports.source import StreamSource
from consumer.replay.counting import place_of
from consumer.worker.tasks import each

AT_ONCE: Final = 8  # shards that are read at a time
PAUSE: Final = 0.5  # seconds between two reads of a shard: it has five a second, which its owner needs, too
QUIET: Final = 3  # pages in a row without records at the tip: a single one may be empty in the middle of a shard
MOST_READS: Final = 12
_PAGE: Final = 1000  # records, where those before the start of the application are passed over


class LagMeter:
    """Measures again and again. ``start_at``: that of the application's registration."""

    def __init__(self, reach: Reach, source: StreamSource, start_at: float | None) -> None:
        self._reach = reach
        self._source = source
        self._start_at = start_at

    async def measure(self, rows: Mapping[str, LeaseRow]) -> list[ShardLag]:
        """The lag of every row that is not finished, in their order. PermissionDenied."""
        found: dict[str, ShardLag] = {}
        wanted = [row for row in rows.values() if not row.finished]

        async def one(row: LeaseRow) -> None:
            found[row.shard_id] = await self._of(row, rows)

        for row, error in await each(wanted, one, at_once=AT_ONCE):
            if isinstance(error, PermissionDenied):
                raise error
            found[row.shard_id] = ShardLag(row.shard_id, "not known", detail=str(error))
        return [found[row.shard_id] for row in wanted]

    async def _of(self, row: LeaseRow, rows: Mapping[str, LeaseRow]) -> ShardLag:
        deferred = self._of_deferred(row)
        if row.corrupt:
            return ShardLag(row.shard_id, "not known", None, deferred, "its row cannot be read")
        if row.settled:
            return ShardLag(row.shard_id, "done", 0.0)
        if not may_start(row, rows):
            unknown = [parent for parent in row.parents if parent not in rows]
            if unknown:
                return ShardLag(row.shard_id, "not known", None, deferred, f"its parent {unknown[0]} has no lease")
            return ShardLag(row.shard_id, "waits", None, deferred, "for its parents, whose lag is larger")
        if row.state == "deferred":
            return ShardLag(row.shard_id, "measured", 0.0, deferred, "settled but for its deferred keys")
        return await self._behind_the_checkpoint(row, deferred)

    def _of_deferred(self, row: LeaseRow) -> float | None:
        since = [one.since for one in row.frontier.deferred if one.since]
        return max(0.0, self._reach.clock.wall() - min(since)) if since else None

    async def _behind_the_checkpoint(self, row: LeaseRow, deferred: float | None) -> ShardLag:
        rule = StartRule(self._start_at, row.replay)
        quiet = 0
        try:
            iterator: str | None = await self._source.iterator(row.shard_id, place_of(row, rule))
            for _ in range(MOST_READS):
                if iterator is None:
                    return ShardLag(row.shard_id, "at the tip", 0.0, deferred, "read to its end")
                page = await self._source.get_records(row.shard_id, iterator, 1 if rule.takes_all else _PAGE)
                first = next((record for record in page.records if not rule.leaves_out(record)), None)
                if first is not None:
                    return self._since(row.shard_id, first.created, deferred)
                quiet = quiet + 1 if page.at_tip else 0
                if quiet == QUIET:
                    return ShardLag(row.shard_id, "at the tip", 0.0, deferred)
                iterator = page.next_iterator
                if iterator is not None:
                    await self._reach.sleep(PAUSE)
        except (TrimmedData, ResourceMissing):
            return ShardLag(row.shard_id, "trimmed", None, deferred, "the record at the checkpoint is gone")
        except (DependencyError, ExpiredIterator) as error:
            return ShardLag(row.shard_id, "not known", None, deferred, str(error))
        return ShardLag(row.shard_id, "not known", None, deferred, f"no record in {MOST_READS} reads")

    def _since(self, shard_id: str, created: float, deferred: float | None) -> ShardLag:
        if created <= 0:
            return ShardLag(
                shard_id, "not known", None, deferred, "the record that follows does not say when it was made"
            )
        return ShardLag(shard_id, "measured", max(0.0, self._reach.clock.wall() - created), deferred)


async def lag_meter(reach: Reach, source: StreamSource, label: str) -> LagMeter:
    registration = await reach.store.registration(label)
    return LagMeter(reach, source, None if registration is None else registration.start_at)


def lag_text(lag: ShardLag | None) -> str:
    """For a column: seconds; "?" where it is not known."""
    if lag is None:
        return "-"
    worst = lag.worst
    return "?" if worst is None else f"{worst:.1f}s"


def unknown_first(lags: Collection[ShardLag]) -> list[ShardLag]:
    """What is not known, then by lag, the largest first."""
    return sorted(lags, key=lambda one: (one.worst is not None, -(one.worst or 0.0), one.shard_id))
