"""The parked keys of the application as one worker knows them, read once for all its shards.

A reading costs as much as there are parked keys, and a cold start takes thousands of shards at once: so one reading
answers all who asked before it began. While keys are parked, one small row is looked at every second; when it says that
a redrive has gone a step, everything is read again.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count, islice
from typing import Protocol

import structlog

from consumer.domain.errors import MisconfiguredResource, StreamConsumerError
from consumer.domain.parking import Parked
from consumer.ports.parking import ParkedReads

log = structlog.get_logger()

LOOK = 1.0  # seconds between looks at the row of changes
_UNDER_WAY = sys.maxsize
UNKNOWN = -1  # changes
READ_AGAIN = 30.0  # seconds after which all is read again: other workers park keys, too


class Reading:
    """All parked keys, as they were at some moment after ``began`` (``ParkedKeys.moment``)."""

    def __init__(self, began: int, found: Iterable[Parked]) -> None:
        self.began = began
        self.by_digest: Mapping[str, Parked] = {one.digest: one for one in found}
        self._of_shards: dict[tuple[str, str], list[str]] = defaultdict(list)
        for digest, one in self.by_digest.items():
            for row in one.shards:
                self._of_shards[row.label, row.shard_id].append(digest)

    def of(self, label: str, shard_id: str) -> list[str]:
        """The digests of the keys that have a row of this shard."""
        return self._of_shards.get((label, shard_id), [])


class Listener(Protocol):
    """A shard that has to know when parked keys change."""

    def parked_changed(self, reading: Reading) -> None:
        """There is a new one."""


class ParkedKeys:
    """Of one application, read through one worker's store."""

    def __init__(self, store: ParkedReads) -> None:
        self._store = store
        self._last = Reading(0, ())
        self._reading = asyncio.Lock()
        self._some = asyncio.Event()
        self._listeners: dict[Listener, None] = {}
        self._changes: int | None = 0
        self._damaged: set[str] = set()  # what was said of rows that cannot be read
        self._parking: dict[str, int] = {}  # digests that no reading has shown so far: when their writes had ended
        self.moment = count(1).__next__  # orders what happens on this loop

    def __len__(self) -> int:
        """Parked keys, as far as is known."""
        return len(self._last.by_digest)

    @property
    def oldest(self) -> float:
        """Since when (Unix seconds) the first of them is parked; 0 without one."""
        keys = (found.key for found in self._last.by_digest.values())
        return min((key.since for key in keys if key is not None), default=0.0)

    def some(self, most: int) -> list[tuple[str, float]]:
        """So many digests of them, each with the time (Unix seconds) since when it is parked; 0 when unknown."""
        found = islice(self._last.by_digest.items(), most)
        return [(digest, one.key.since if one.key is not None else 0.0) for digest, one in found]

    def listen(self, listener: Listener) -> None:
        """``listener`` hears of every reading from now on."""
        self._listeners[listener] = None

    def forget(self, listener: Listener) -> None:
        """``listener`` hears of nothing any more."""
        self._listeners.pop(listener, None)

    @property
    def at_least(self) -> int:
        """Parked keys, with those that this worker has parked since it read them."""
        return len(self._last.by_digest) + len(self._parking.keys() - self._last.by_digest.keys())

    @contextmanager
    def parking(self, digest: str) -> Iterator[None]:
        """This worker parks a key meanwhile: it counts from the beginning, and there is something to look at."""
        self._parking[digest] = _UNDER_WAY
        self._some.set()
        try:
            yield
        finally:
            self._parking[digest] = self.moment()

    async def read(self) -> Reading:
        """A reading that began after this call. Unavailable."""
        asked = self.moment()
        async with self._reading:
            if self._last.began < asked:
                began = self.moment()
                self._last = Reading(began, await self._store.parked())
                self._tell_damage()
                self._parking = {digest: ended for digest, ended in self._parking.items() if ended > began}
                if self._last.by_digest:
                    self._some.set()
                for listener in list(self._listeners):
                    listener.parked_changed(self._last)
            return self._last

    def _tell_damage(self) -> None:
        """Once of each row, and again when it was put right and is damaged anew."""
        damaged = {one.problem: one for found in self._last.by_digest.values() for one in found.damaged}
        for problem, one in damaged.items():
            if problem not in self._damaged:
                log.error("parked_key.damaged", key_digest=one.digest, shard_id=one.shard_id or None, problem=problem)
        self._damaged = set(damaged)

    async def look(self, digest: str) -> tuple[int, Parked]:
        """One key: the moment before it was read, and what was found. Unavailable."""
        began = self.moment()
        found = await self._store.parked_key(digest)
        if found.digest:
            self._some.set()  # it was parked by another worker, and its steps are to be noticed from now on
        return began, found

    async def _number_of_changes(self) -> int | None:
        """None when its row was damaged, so that nobody waits for it to grow. Unavailable."""
        try:
            return await self._store.parked_changes()
        except MisconfiguredResource as error:
            log.warning("parked_keys.read_failed", error=str(error))
            self._changes = UNKNOWN
            return None

    async def watch(self) -> None:
        """While keys are parked, notice the steps of redrives; for ever."""
        loop = asyncio.get_running_loop()
        read_at, took = loop.time(), 0.0
        while True:
            await self._some.wait()
            # Reading thousands of keys takes a while, of this process and of one partition: it gets a tenth at most.
            await asyncio.sleep(max(LOOK, 10.0 * took))
            try:
                changes = await self._number_of_changes()
                if changes == self._changes and loop.time() - read_at < READ_AGAIN:
                    continue
                began = loop.time()
                await self.read()
                took = loop.time() - began
            except StreamConsumerError as error:  # a damaged row, too: what is known counts on
                log.warning("parked_keys.read_failed", error=str(error))
                continue
            self._changes, read_at = changes, loop.time()
            if not self._last.by_digest:
                self._some.clear()
