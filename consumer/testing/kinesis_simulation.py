"""A fleet on a Kinesis stream into which DynamoDB puts changes: late, twice, and some in the wrong order.

world = KinesisSimulation(seed=3, shards=2, doubled=0.1, swapped=0.1)
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

import msgspec

from consumer.aws.kinesis_changes import change_in
from consumer.aws.kinesis_pages import KinesisShard, convert_page
from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.deferred import digest_of
from consumer.domain.kinesis_format import ordering_key
from consumer.domain.kinesis_numbers import book_number
from consumer.ports.leases import Loss
from consumer.ports.source import StreamSource
from consumer.ports.time import ServiceClock
from consumer.testing.gap_rules import GapRules
from consumer.testing.history import Item
from consumer.testing.memory_kinesis import MemoryKinesis
from consumer.testing.memory_kinesis_client import kinesis_source
from consumer.testing.network import Link
from consumer.testing.simulation import Simulation
from consumer.testing.wire import to_wire

TABLE: Final = "orders"
LATEST_DOUBLE: Final = 5.0  # seconds from the change to its second record
LATEST_SWAP: Final = 2.0  # seconds that a change may be late, so that later ones of its item come before it
ANEW_AFTER: Final = 20.0
LIST_SHARDS_LIMIT: Final = 100.0  # calls a second of an account, in an older guide of AWS; now 1,000 of a stream
SOURCE: Final = {"kind": "kinesis", "stream": "changes", "table": TABLE}


@dataclass(frozen=True, slots=True)
class MadeChange:
    """A change as DynamoDB made it; ``data`` is what it puts."""

    key: str
    version: int
    micros: int
    data: bytes


class KinesisSimulation(Simulation):
    """``Simulation`` on a Kinesis stream.

    ``millis``: the table gives creation times in milliseconds from now on. Without ``source.table`` in ``config`` it is
    one of ``orders``; with ``table: None`` handlers see all records.

    Args:
        doubled: share of the changes that are put once more, up to ``LATEST_DOUBLE`` later.
        swapped: share of the changes that are put up to ``LATEST_SWAP`` late.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        shards: int = 1,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        on_event: Callable[[str], None] | None = None,
        bounds: KeyBounds = BOUNDS,
        doubled: float = 0.0,
        swapped: float = 0.0,
    ) -> None:
        config = config or {}
        source = {**SOURCE, **config.get("source", {})}
        super().__init__(
            seed,
            shards=shards,
            config={**config, "source": source},
            on_event=on_event,
            bounds=bounds,
            first_stream=lambda clock, shards, _: MemoryKinesis(clock, shards=shards),
        )
        self.checkers.listing_limit = LIST_SHARDS_LIMIT
        self.doubled = doubled
        self.swapped = swapped
        self.millis = False
        self._put_rng = self.rng("puts")
        self._images: dict[str, dict[str, Any]] = {}
        self._made_at: dict[str, int] = {}
        self._newest: dict[str, tuple[int, Item]] = {}
        self.made: dict[str, int] = {}  # the last version of each key
        self.on_their_way = 0  # changes that are not put yet
        self._late: dict[int, MadeChange] = {}
        self._places = count()
        self.gap_rules = GapRules(self.history)
        self.table.on_loss = partial(_loss_recorded, self)

    def source(self, link: Link, clock: ServiceClock) -> StreamSource:
        return kinesis_source(self.streams[0], clock.wall, link)

    # --- the table -----------------------------------------------------------------------------------------------

    def put(self, key: str, **attributes: Any) -> str:
        """A new version of an item is written; the change is on its way. ``v`` counts the versions from 1."""
        self._on_its_way(self.change(key, **attributes))
        return ""

    def remove(self, key: str) -> None:
        """An item is deleted, if it is there."""
        if key in self._images:
            self._on_its_way(self._changed_to(key, None))

    def put_record(self, data: bytes, partition_key: str) -> None:
        """A producer puts what is no change of the table, or several records at once as the KPL does."""
        if self.stream.gone:
            return  # an error that its producer sees
        shard_id, number = self.stream.put(data, partition_key)
        if self.settings.source.table is not None:
            return  # no handler sees it
        wire = {"SequenceNumber": number, "Data": data, "PartitionKey": partition_key}
        where = KinesisShard(self.stream.stream_arn, shard_id)
        for record in convert_page({"Records": [wire]}, where).page.records:
            key = ordering_key(record)
            name = f"record {key.decode(errors='replace')}"
            version = self.made[name] = self.made.get(name, 0) + 1
            shown = record.sequence_number
            self.checkers.produced(record.number, name, version, shard_id, digest_of(key), shown=shown)

    def change(self, key: str, **attributes: Any) -> MadeChange:
        """A new version of an item is written. The change is put when the scenario does it, with ``send``: never, late,
        or several times."""
        return self._changed_to(key, {"id": key, "v": self.made.get(key, 0) + 1, **attributes})

    def send(self, change: MadeChange) -> None:
        """DynamoDB puts a change now."""
        self._put_later(change, 0.0)

    def _changed_to(self, key: str, item: Mapping[str, Any] | None) -> MadeChange:
        rng, version = self._put_rng, self.made.get(key, 0) + 1
        self.made[key] = version
        # A millisecond apart at least: when even that is not known, only neighbours can be told apart.
        micros = max(self._made_at.get(key, 0) + 1000, round(self.clock.wall() * 1_000_000))
        self._made_at[key] = micros
        old, new = self._images.pop(key, None), None
        if item is not None:
            new = self._images[key] = to_wire(item)["M"]
        name = "REMOVE" if new is None else "INSERT" if old is None else "MODIFY"
        images = {"NewImage": new, "OldImage": old}
        precise = {} if self.millis else {"ApproximateCreationDateTimePrecision": "MICROSECOND"}
        event_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        body = {
            "awsRegion": "us-east-1",
            "eventID": event_id,
            "eventName": name,
            "userIdentity": None,
            "recordFormat": "application/json",
            "tableName": TABLE,
            "dynamodb": {
                "ApproximateCreationDateTime": micros // 1000 if self.millis else micros,
                "Keys": {"id": {"S": key}},
                **{image: value for image, value in images.items() if value is not None},
                "SizeBytes": 10,
                **precise,
            },
            "eventSource": "aws:dynamodb",
        }
        return MadeChange(key, version, micros, msgspec.json.encode(body))

    def _on_its_way(self, change: MadeChange) -> None:
        rng = self._put_rng
        late = rng.uniform(0.0, LATEST_SWAP) if rng.random() < self.swapped else 0.0
        self._put_later(change, late)
        if rng.random() < self.doubled:
            self._put_later(change, late + rng.uniform(0.0, LATEST_DOUBLE))

    def put_all(self) -> None:
        """What is on its way is put now, so that nothing is later than it may be when days pass."""
        while self._late:
            self._put_in_time(next(iter(self._late)))

    def _put_later(self, change: MadeChange, seconds: float) -> None:
        self.on_their_way += 1
        if seconds:
            place = next(self._places)
            self._late[place] = change
            self.loop.after(seconds, self._put_in_time, place)
        else:
            self._put(change)

    def _put_in_time(self, place: int) -> None:
        change = self._late.pop(place, None)
        if change is not None:
            self._put(change)

    def shard_of_item(self, key: str) -> str:
        """The open shard that the next change of an item goes to."""
        shard_id: str = self.stream.shard_of(_partition_key(key))
        return shard_id

    def _put(self, change: MadeChange) -> None:
        """DynamoDB puts a change: what its number is, and what it comes after. It waits for a stream."""
        if self.stream.gone:
            self.loop.after(1.0, self._put, change)
            return
        self.on_their_way -= 1
        shard_id, shown = self.stream.put(change.data, _partition_key(change.key))
        decoded = change_in(change.data, shown, self.stream.stream_arn)
        if decoded is None:
            raise AssertionError("the change is not one")
        digest = digest_of(ordering_key(decoded))
        newest = self._newest.get(change.key)
        superseded_by = newest[1] if newest is not None and newest[0] >= change.micros else None
        item = self.checkers.produced(
            book_number(shown),
            change.key,
            change.version,
            shard_id,
            digest,
            shown=shown,
            superseded_by=superseded_by,
            created=change.micros / 1_000_000,
        )
        if superseded_by is None:
            self._newest[change.key] = change.micros, item

    # --- what happens to the stream ------------------------------------------------------------------------------

    def make_anew(self, shards: int = 1) -> None:
        """The stream is deleted with all that is in it; one of its name is made ``ANEW_AFTER`` seconds later."""
        old = self.stream
        old.gone = True
        rows = self.rows_of(old)
        for shard_id in (*old.open_shards(), *old.closed_shards()):
            known = shard_id in rows
            self.gap_rules.lost(shard_id, self.checkers.trimmed(shard_id, known=known), known=known)

        def make() -> None:
            self.streams.append(old.made_anew(shards))
            self.history.note("stream made anew", self.stream.label)

        self.loop.after(ANEW_AFTER, make)

    def expire_records(self) -> None:
        """What retention does now. Of a shard that was never read nobody can know what was in it."""
        rows = self.rows_of(self.stream)
        for shard_id, upto in self.stream.expire():
            row = rows.get(shard_id)
            known = row is not None and (not row.frontier.untouched or row.frontier.complete_at > 0)
            last = int(book_number(str(upto + 1))) - 1  # with all that the KPL has packed into that record
            lost = self.checkers.trimmed(shard_id, last, known=known)
            if lost:
                self.gap_rules.lost(shard_id, lost, known=known)

    def delete_row(self, shard_id: str) -> None:
        super().delete_row(shard_id)
        if self.gap_rules.row_deleted(shard_id):
            self.checkers.excuse(shard_id)

    # --- what a scenario asks ------------------------------------------------------------------------------------

    async def finish(self) -> None:
        await super().finish()
        self.gap_rules.at_the_end()

    def all_put_and_settled(self) -> bool:
        """Nothing is on its way, and every record is handled, dead-lettered or lost with its trace."""
        return not self.on_their_way and self.everything_settled()

    def check_last_effects(self) -> None:
        """The last change of every item is what its handler saw last, unless it was given up or lost."""
        for key, (_, newest) in self._newest.items():
            last = self.checkers.last_effects.get(key)
            gone = not self.stream.knows(newest.shard_id)
            if gone or newest.lost or newest.dead_lettered or newest.settled_at is None:
                continue
            if last is None or last.version != newest.version:
                found = f"v{last.version}" if last is not None else "nothing"
                self.history.violated("last version", f"{key} ends with {found}, not with v{newest.version}")


def _partition_key(key: str) -> str:
    """Of the record of a change: DynamoDB's function is not known, its results look like this."""
    return hashlib.md5(key.encode(), usedforsecurity=False).hexdigest().upper()


def _loss_recorded(world: KinesisSimulation, label: str, loss: Loss) -> None:
    if label == world.stream.label and not world.stream.gone:
        row, now = world.rows_of(world.stream).get(loss.shard_id), world.clock.wall()
        world.gap_rules.recorded(loss, row, now, world.stream.retention)
    else:  # of a stream that is gone with all that was in it
        world.gap_rules.recorded(loss, None, 0.0, 0.0)
