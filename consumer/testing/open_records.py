"""The records of a simulation, and which of them are still to be settled."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from typing import Protocol

from consumer.ports.leases import Registration
from consumer.ports.time import Clock
from consumer.testing.history import History, Item


def record_name(shard_id: str, number: str) -> str:
    """Of a record: the numbers of a stream say nothing about those of the next one."""
    return f"{shard_id} {number}"


class Stream(Protocol):
    """What the rules ask of a stream in memory. ``arn`` names this very one."""

    clock: Clock

    @property
    def arn(self) -> str: ...
    def knows(self, shard_id: str) -> bool: ...
    def has(self, shard_id: str) -> bool: ...
    def parents_of(self, shard_id: str) -> tuple[str, ...]: ...


class OpenRecords:
    """The records of all streams, and which of them are still to be settled."""

    def __init__(self, history: History, streams: Sequence[Stream]) -> None:
        """``streams`` of the table, oldest first; more may be added."""
        self._history = history
        self._streams = streams
        self._open: dict[str, dict[int, Item]] = defaultdict(dict)  # by shard
        self._lost: dict[str, list[Item]] = defaultdict(list)
        self._newest: dict[str, Item] = {}
        self._horizons: dict[str, list[tuple[float, float]]] = defaultdict(list)  # by shard: time, last number trimmed
        self.last_effects: dict[str, Item] = {}  # by key: what was handled last
        self._registrations: dict[str, Registration] = {}
        self.keeps_order = False  # also past what is given up: keys are parked

    def produced(
        self,
        number: str,
        key: str,
        version: int,
        shard_id: str,
        digest: str = "",
        *,
        shown: str | None = None,
        superseded_by: Item | None = None,
        created: float | None = None,
    ) -> Item:
        """A record was written. ``digest`` names its ordering key in frontiers; ``shown`` is its number as handlers see
        it, where that is not the number of the books. One that is ``superseded_by`` another need not be handled.
        ``created`` (Unix seconds) is now, in whole seconds, if it is not given."""
        created = float(int(self._streams[0].clock.wall())) if created is None else created
        item = Item(int(number), key, version, shard_id, created, self._newest.get(key), self._history.now(), digest)
        item.superseded_by = superseded_by
        if superseded_by is None:
            self._newest[key] = item
        for name in (number, shown or number):
            self._history.items[record_name(shard_id, name)] = item
        registration = self._registration_of(shard_id)
        if registration is not None:
            item.before_start = self._is_before(item, registration)
        if item.open:
            self._open[shard_id][item.number] = item
        self._history.note("put", key, version, shard_id, number)
        return item

    def trimmed(self, shard_id: str, upto: int | None = None, *, known: bool = True) -> list[Item]:
        """Records were dropped by the service. Those that were not settled are lost, and returned; a gap row must name
        them, if it is ``known`` that there were any."""
        lost = list[Item]()
        for item in list(self._open[shard_id].values()):
            if upto is None or item.number <= upto:
                item.lost = True
                lost.append(item)
                if known and self._registration_of(shard_id) is not None:  # before that none had to be read
                    self._lost[shard_id].append(item)
                self._closed(item)
        self._horizons[shard_id].append((self._history.now(), math.inf if upto is None else upto))
        self._history.note("trim", shard_id, upto)
        return lost

    def gone_up_to(self, shard_id: str) -> float:
        """The last number that the service has dropped; below all numbers when it has dropped none."""
        return max((last for _, last in self._horizons[shard_id]), default=-math.inf)

    def excuse(self, shard_id: str) -> None:
        """Of what was lost of a shard so far nobody can know any more."""
        self._lost.pop(shard_id, None)

    def registered(self, registration: Registration) -> None:
        """The application's start is durable: older records are not its concern."""
        before = next(iter(self._registrations.values()), registration)
        if registration.stream_id != before.stream_id and (
            registration.skip_shards or registration.start_at != before.start_at
        ):
            self._history.violated("start position", f"{registration.stream_id} follows, and is not read whole")
        self._registrations[registration.stream_id] = registration
        for item in self._history.items.values():
            if self._registration_of(item.shard_id) is not registration:
                continue
            item.before_start = self._is_before(item, registration)
            if item.before_start:
                self._closed(item)

    def item(self, shard_id: str, number: str) -> Item:
        """The record with a SequenceNumber."""
        return self._history.items[record_name(shard_id, number)]

    @property
    def left(self) -> int:
        """Records still to be settled."""
        return sum(map(len, self._open.values()))

    def oldest_open(self) -> Iterator[Item]:
        """Records still to be settled, shard by shard, oldest first."""
        for items in self._open.values():
            yield from items.values()

    def _stream_of(self, shard_id: str) -> int:
        return next(number for number, stream in enumerate(self._streams) if stream.knows(shard_id))

    def _registration_of(self, shard_id: str) -> Registration | None:
        return self._registrations.get(self._streams[self._stream_of(shard_id)].arn)

    def _took_effect(self, item: Item, incarnation: str, begun: float) -> None:
        """A record was handled, by an owner who has ``begun`` then with its shard: not after a newer change of its
        item, as far back as a worker looks."""
        newer = item.superseded_by
        if newer is not None and newer.settled_at is not None and not newer.lost:
            known = newer.settled_in[0] == incarnation or self._was_there(newer, item, begun)
            if known:
                found = f"{item.key} v{item.version} is handled after v{newer.version} by {incarnation}"
                self._history.violated("last version", found)
        self.last_effects[item.key] = item
        if self.keeps_order:
            self.check_order(item, incarnation)

    def check_order(self, item: Item, who: str) -> None:
        """A record takes effect, for the first time or again: whatever was before it of its key has had its own."""
        before = item.previous
        skipped = before is None or before.lost or before.before_start or before.superseded_by is not None
        if before is not None and not skipped and not before.handled and not item.handled:
            found = f"{item.key} v{item.version} is handled by {who}, v{before.version} is not"
            self._history.violated("park order", found)

    def _was_there(self, newer: Item, item: Item, begun: float) -> bool:
        """Whether who has begun with ``item``'s shard then was able to read ``newer``, which others have handled. Not
        what was trimmed by then, as after a gap, and not what was in a stream that is gone: nobody can know of it."""
        trims = self._horizons[newer.shard_id]
        trimmed = any(newer.number <= last for when, last in trims if when <= begun)
        return not trimmed and self._stream_of(newer.shard_id) == self._stream_of(item.shard_id)

    def _closed(self, item: Item) -> None:
        self._open[item.shard_id].pop(item.number, None)

    @staticmethod
    def _is_before(item: Item, registration: Registration) -> bool:
        if item.shard_id in registration.skip_shards:
            return True
        return registration.start_at is not None and item.created < registration.start_at

    def _settle(self, item: Item) -> None:
        if item.settled_at is None:
            item.settled_at = self._history.now()
            self._closed(item)


class Promptness(OpenRecords):
    """Nothing is shared: a record waits for no other key than its own, however long that fails."""

    def __init__(self, history: History, streams: Sequence[Stream]) -> None:
        super().__init__(history, streams)
        self._prompt = math.inf  # seconds within which a record is settled, unless its key fails
        self._prompt_since = 0.0
        self._failing: Container[str] = ()

    def expect_prompt(self, seconds: float, failing: Container[str]) -> None:
        """From now on, every record is settled within ``seconds``, whatever becomes of the keys ``failing``. A scenario
        says so whenever nothing disturbs the fleet (``math.inf`` ends it)."""
        self._prompt, self._prompt_since, self._failing = seconds, self._history.now(), failing

    def check_prompt(self) -> None:
        """Records that are late and still not settled."""
        for item in self.oldest_open():
            self._check_prompt(item)

    def _settle(self, item: Item) -> None:
        if item.settled_at is None:
            self._check_prompt(item)
        super()._settle(item)

    def _check_prompt(self, item: Item) -> None:
        waited = self._history.now() - item.put_at
        if waited > self._prompt and item.put_at >= self._prompt_since and item.key not in self._failing:
            found = f"{item.key} v{item.version} of {item.shard_id} waits for {waited:.1f} s"
            self._history.violated("nothing shared", found)
