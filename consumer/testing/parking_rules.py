"""The rules about parked keys, over the rows of the table and the letters that have arrived."""

from __future__ import annotations

from consumer.domain.dead_letter import Parked
from consumer.domain.outcome import HandlerCall
from consumer.domain.parking import ParkedKey, ParkedShard
from consumer.testing.checkers import Checkers
from consumer.testing.history import History, Item
from consumer.testing.memory_table import MemoryTable
from consumer.testing.open_records import record_name


class ParkingRules:
    """Of one application. ``letters``: the records that have arrived as letters of parked keys, by park id, shard and
    ordinal."""

    def __init__(self, application: str, history: History, table: MemoryTable, checkers: Checkers) -> None:
        self._application = application
        self._history = history
        self._table = table
        self._checkers = checkers
        self._keys: dict[str, ParkedKey] = {}
        self._shards: dict[tuple[str, str, str], ParkedShard] = {}
        self.letters: dict[tuple[str, str, int], dict[int, Item]] = {}
        self.parked = 0
        self.freed = 0
        table.on_park = self._changed

    def live(self, incarnation: str, call: HandlerCall) -> None:
        """User code is about to run in a worker: not for a record of a key that is parked from there on."""
        for record in call.records:
            item = self._history.items[record_name(call.shard_id, record.sequence_number)]
            key = self._table.parked.get((self._application, item.digest))
            row = self._row(item.digest, call.shard_id)
            if key is not None and row is not None and row.park_id == key.park_id and item.number >= int(row.first):
                found = f"{item.key} v{item.version} is handled by {incarnation}, and its key is parked"
                self._history.violated("park followers", found)

    def letter(self, shard_id: str, parked: Parked, number: str) -> None:
        """The letter of a parked key is durable."""
        item = self._history.items[record_name(shard_id, number)]
        found = self.letters.setdefault((parked.park_id, shard_id, parked.ordinal), {})
        found[item.number] = item
        row = self._row(item.digest, shard_id)
        if row is not None and row.park_id == parked.park_id and item.number < int(row.first):
            self._history.violated("park ordinals", f"{item.key} v{item.version} is from before its key was parked")
        if len(found) > 1:
            names = ", ".join(f"{one.key} v{one.version}" for one in found.values())
            self._history.violated("park ordinals", f"letter {parked.ordinal} of {shard_id} is {names}")
        if not any(key.park_id == parked.park_id for key in self._keys.values()) and not item.handled:
            self._history.violated("park mark first", f"{item.key} v{item.version} is a letter of no parked key")

    def at_the_end(self) -> None:
        """Redrives have brought everything back."""
        for key in self._keys.values():
            self._history.violated("park freed", f"{key.digest} is parked at the end")
        for item in self._history.items.values():
            if not item.handled and not item.lost and not item.before_start and item.superseded_by is None:
                self._history.violated("park complete", f"{item.key} v{item.version} was never handled")

    def _row(self, digest: str, shard_id: str) -> ParkedShard | None:
        rows = self._table.parked_shards.items()
        return next((row for (_, name, _, shard), row in rows if name == digest and shard == shard_id), None)

    def _changed(self, digest: str) -> None:
        key = self._table.parked.get((self._application, digest))
        before = self._keys.get(digest)
        self._history.note("parked", digest, key.state if key else "free", key.claim if key else "")
        rows = {
            (digest, label, shard): row
            for (app, name, label, shard), row in self._table.parked_shards.items()
            if app == self._application and name == digest
        }
        for place, row in rows.items():
            for ordinal in range(1, row.letters + 1):
                if (row.park_id, row.shard_id, ordinal) not in self.letters:
                    self._history.violated("park counted", f"letter {ordinal} of {row.shard_id} is counted, not sent")
            self._shards[place] = row
        if key is None and before is not None:
            self.freed += 1
            self._freed(before)
            self._shards = {place: row for place, row in self._shards.items() if place[0] != digest}
        if key is not None:
            self.parked += before is None
            self._keys[digest] = key
        else:
            self._keys.pop(digest, None)

    def _freed(self, key: ParkedKey) -> None:
        """A letter that is not counted was sent by an owner that has ended: its record is in no books yet."""
        for row in self._shards.values():
            for ordinal in range(1, row.letters + 1) if row.park_id == key.park_id else ():
                for item in self.letters[row.park_id, row.shard_id, ordinal].values():
                    if not item.handled:
                        found = f"{item.key} v{item.version}, letter {ordinal} of {row.shard_id}, is not handled"
                        self._history.violated("park freed", f"{key.digest} is free, and {found}")
