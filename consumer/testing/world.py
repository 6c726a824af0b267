"""What the fleet of a simulation shares: time, the table and its streams, the lease table, dead letters, history."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.deferred import digest_of
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import DAY
from consumer.ports.source import StreamSource
from consumer.ports.time import Clock, ServiceClock
from consumer.settings.load import settings_from
from consumer.settings.model import Settings
from consumer.testing.checkers import Checkers
from consumer.testing.history import History
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from consumer.testing.memory_source import SHARDS_PER_PAGE, MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Link
from consumer.testing.parking_rules import ParkingRules
from consumer.testing.read_units import ReadUnits
from consumer.testing.virtual_loop import VirtualLoop
from consumer.testing.wire import to_wire
from consumer.worker.fleet.stream_replacement import FINISHED_FOR

APPLICATION = "simulated"
LETTER_LIMIT = 1024 * 1024  # bytes of a message in SQS


class World:
    """The services, and what happens to them. Everything that changes a record or a row goes by here, so that the
    checkers know of it."""

    def __init__(
        self,
        seed: int | str,
        *,
        shards: int = 1,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        on_event: Callable[[str], None] | None = None,
        stream: Mapping[str, Any] | None = None,
        bounds: KeyBounds = BOUNDS,
        first_stream: Callable[[Clock, int, Mapping[str, Any]], Any] | None = None,
    ) -> None:
        """``first_stream`` makes another kind of stream than that of a table: of so many shards, with options."""
        self.seed = seed
        self.bounds = bounds
        self.config = config or {}
        self.settings = settings_of(self.config)  # of workers that have none of their own
        self.loop = VirtualLoop(self.rng("schedule"))
        self.clock = self.loop.world  # of AWS
        # Of one kind, oldest first.
        self.streams: list[Any] = [(first_stream or _table_stream)(self.clock, shards, stream or {})]
        self.table = MemoryTable(service_time=self.clock.wall)
        self.dead_letters = MemoryDeadLetters(maximum_size=LETTER_LIMIT)
        self.history = History(lambda: self.loop.now, on_event)
        max_age = self.settings.retry.max_record_age
        oldest = max_age if max_age >= 0 else DAY
        self.checkers = Checkers(self.history, self.streams, max_age=oldest)
        self.calls: dict[str, int] = defaultdict(int)  # that have reached a service, by operation
        self._versions: dict[str, int] = defaultdict(int)
        self._gaps_before: set[str] = set()
        self.read_units = ReadUnits(lambda: self.loop.now)
        self.table.on_read = self.read_units.count
        self.table.on_write = self.checkers.written
        self.table.on_save = self.checkers.saving
        self.table.on_register = self.checkers.registered
        self.table.on_remove = self.checkers.removed
        self.parking = ParkingRules(self.settings.application, self.history, self.table, self.checkers)
        self.checkers.keeps_order = self.settings.on_failure.order == "park_key"

    def rng(self, purpose: str) -> random.Random:
        """Randomness of its own for every purpose, so that one more draw here changes nothing there."""
        return random.Random(f"{self.seed}/{purpose}")  # noqa: S311 - for a simulation

    @property
    def stream(self) -> Any:
        """The newest stream."""
        return self.streams[-1]

    def source(self, link: Link, clock: ServiceClock) -> StreamSource:
        """The stream as a worker reaches it, whose clock is this."""
        return MemoryStreamSource(self.streams[0], link).of(self.stream.arn)

    # --- what happens to the table and its stream --------------------------------------------------------

    def put(self, key: str, **attributes: Any) -> str:
        """Write an item with the partition key ``key``: one more record. ``v`` counts its versions from 1."""
        version = self._versions[_text(key)] + 1
        number = self.write({self.stream.partition_key: key, "v": version, **attributes})
        if number is None:
            raise AssertionError("a new version is always a change")
        return number

    def write(self, item: Mapping[str, Any]) -> str | None:
        """Write an item of Python values; None when nothing changes, which makes no record."""
        return self._changed(item, self.stream.put)

    def delete(self, key: Mapping[str, Any]) -> str | None:
        """Delete an item; None when there is none."""
        return self._changed(key, self.stream.delete)

    def _changed(self, item: Mapping[str, Any], change: Callable[[Mapping[str, Any]], str | None]) -> str | None:
        partition = item[self.stream.partition_key]
        shard_id = self.stream.shard_of(partition)
        number = change(item)
        if number is not None:
            name = ", ".join(_text(item[part]) for part in self.stream.key_names)
            self._versions[name] += 1
            digest = digest_of(msgspec.json.encode(to_wire(partition)))
            self.checkers.produced(number, name, self._versions[name], shard_id, digest)
        return number

    def trim(self, shard_id: str, upto: str | None = None) -> None:
        """The service drops records, read or not."""
        self._home(shard_id).trim(shard_id, upto)
        self.checkers.trimmed(shard_id, None if upto is None else int(upto))

    def vanish(self, shard_id: str) -> None:
        """The service forgets a closed shard with whatever is in it."""
        self._home(shard_id).vanish(shard_id)
        self.checkers.trimmed(shard_id)

    def enable_again(self, shards: int = 1) -> None:
        """The stream is disabled; the table gets a new one, with a new ARN, for all further writes. Children of the old
        one that are still hidden are shown within ``FINISHED_FOR``: no worker can wait for them for ever."""
        old = self.stream
        self.loop.after(0.9 * FINISHED_FOR, old.hide_children, 0.0)
        label = f"2026-01-{len(self.streams) + 1:02}T00:00:00.000"
        self.streams.append(self.stream.enable_again(label, shards=shards))
        self.history.note("stream enabled again", label)

    def wipe_table(self) -> None:
        """The lease table is deleted with all its rows; ``table.exists`` says when it is made anew."""
        self._gaps_before |= self.gaps_recorded()
        for shard_id in self.rows():
            self.checkers.deleted(shard_id)
        self.table.drop_rows()
        self.table.exists = False

    def delete_row(self, shard_id: str) -> None:
        """A lease row is deleted by hand: no worker knows of it."""
        self.table.drop_lease(APPLICATION, self._home(shard_id).label, shard_id)
        self.checkers.deleted(shard_id)

    def _home(self, shard_id: str) -> Any:
        return next(stream for stream in self.streams if stream.knows(shard_id))

    # --- what happens to the lease table -----------------------------------------------------------------

    def edit_row(self, shard_id: str, **changes: Any) -> None:
        """A lease row is edited by hand: no worker knows of it."""
        self.table.edit(APPLICATION, self._home(shard_id).label, shard_id, **changes)
        self.checkers.corrupted(self.rows()[shard_id])

    def rows(self) -> dict[str, LeaseRow]:
        """The lease rows as the table holds them, those of streams before this one included."""
        return {shard_id: row for stream in self.streams for shard_id, row in self.rows_of(stream).items()}

    def rows_of(self, stream: Any) -> dict[str, LeaseRow]:
        """The lease rows of one stream."""
        held = self.table.leases.get((APPLICATION, stream.label), {})
        return {shard_id: lease.row for shard_id, lease in held.items()}

    def gaps_recorded(self) -> set[str]:
        """Shards with a durable trace of records that were lost unread."""
        labels = [(APPLICATION, stream.label) for stream in self.streams]
        losses = [loss for label in labels for loss in self.table.losses.get(label, {}).values()]
        return self._gaps_before | {loss.shard_id for loss in losses if loss.kind == "gap"}

    # --- calls -------------------------------------------------------------------------------------------

    def called(self, link: Link, operation: str, outcome: str) -> None:
        """Every call that reaches a service comes by here."""
        self.calls[operation] += 1
        self.history.note("call", link.sender, link.service, operation, outcome)
        if operation in ("list_shards", "child_shards", "check_listing"):  # ``describe`` asks DescribeTable
            self.checkers.listed(self._pages() if (operation, outcome) == ("list_shards", "list") else 1)

    def _pages(self) -> int:
        """Calls that a complete listing takes: the largest stream decides."""
        most = max(len(stream.open_shards()) + len(stream.closed_shards()) for stream in self.streams)
        return max(1, -(-most // SHARDS_PER_PAGE))


def _table_stream(clock: Clock, shards: int, options: Mapping[str, Any]) -> MemoryStream:
    return MemoryStream(clock, shards=shards, **options)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def settings_of(*configs: Mapping[str, Any]) -> Settings:
    """Sections of the configuration file, merged over quick defaults, the last one on top."""
    base: dict[str, Any] = {
        "source": {"table": "orders", "on_gap": "continue", "poll": {"idle_backoff_max": "5s"}},
        "handler": {"kind": "python", "isolation": "inline", "target": "simulated:handler"},
        "leases": {"duration": "10s"},
        "on_failure": {"destination": "arn:aws:sqs:us-east-1:000000000000:dead-letters"},
    }
    for config in configs:
        for section, values in config.items():
            merged = isinstance(values, Mapping) and section in base
            base[section] = base[section] | dict(values) if merged else values
    return settings_from({"application": APPLICATION, **base})
