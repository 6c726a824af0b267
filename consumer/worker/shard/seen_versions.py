"""Which changes of a shard are given to the handler, where the source repeats them and mixes up their order."""

from __future__ import annotations

from consumer.domain.deferred import DeferredKeys, digest_of
from consumer.domain.item_versions import ItemVersions
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord
from consumer.operate.metrics import Metrics


class SeenVersions:
    """``versions`` is the memory of the process, which all its shards share: the children of a shard go on with it.
    Keys that are ``deferred`` go on at a place of their own, and what is remembered of them is what was before that.
    With a ``table`` only its changes are remembered: others go to no handler, and would take their room."""

    def __init__(
        self, versions: ItemVersions, metrics: Metrics, deferred: DeferredKeys, table: str | None = None
    ) -> None:
        self._versions = versions
        self._deferred = deferred
        self._table = table
        self._metrics = metrics

    def remember(self, record: StreamRecord, key: bytes, _own: bool) -> None:
        """A record from before the place where the main reader goes on: what follows may be older than it. Of a
        deferred key it may be one that is still to be handled, here or, by the same process, in a parent."""
        deferred = self._deferred
        if deferred and (digest := digest_of(key)) in deferred and not deferred.has_met(digest):
            return
        if self._is_wanted(record):
            self._versions.judge(record, key)

    def remember_again(self, record: StreamRecord, key: bytes, own: bool) -> None:
        """The same for the second reader: records of the keys that it reads, from before this shard, or settled in its
        ``own``."""
        digest, deferred = digest_of(key), self._deferred
        settled = digest in deferred.in_pass and not (own and deferred.is_wanted(digest, int(record.number)))
        if settled and self._is_wanted(record):
            self._versions.judge(record, key)

    def is_superseded(self, record: StreamRecord, key: bytes) -> bool:
        """Whether the change was seen before, or a newer one of its item; counted. ``key`` orders the record."""
        verdict = self._versions.judge(record, key) if self._is_wanted(record) else "new"
        if verdict == "tie":
            self._metrics.version_ties.inc()
        elif verdict == "double":
            self._metrics.duplicates_skipped.inc()
        elif verdict == "older":
            self._metrics.records("superseded").inc()
        return verdict in ("double", "older")

    def _is_wanted(self, record: StreamRecord) -> bool:
        return self._table is None or (isinstance(record, Record) and record.table_name == self._table)
