"""A redrive of parked keys as one process of the simulated fleet: ``stream-consumer dlq redrive`` above its ports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

import structlog

from consumer.domain.errors import SessionFenced, StreamConsumerError, first_error
from consumer.domain.events import records_from_event
from consumer.domain.lease import Observer, SessionRow, SessionValidity, name_of
from consumer.domain.parking import ParkedShard
from consumer.domain.stream_record import StreamRecord
from consumer.ports.parked_letters import ParkedLetter
from consumer.redrive.parked import ParkedRedrive
from consumer.testing.memory_dead_letters import DeadLetter
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.network import Link
from consumer.testing.observed import whole_document
from consumer.testing.virtual_loop import Process
from consumer.testing.world import World
from consumer.worker.fleet.session_renewal import SessionRenewal

log = structlog.get_logger()

DURATION = 10.0  # seconds
Handles = Callable[[str, str], bool]
"""Whether the handler can handle the record with this shard id and number."""


class SimulatedRedrive:
    """One process that redrives all parked keys again and again until it is killed or ``ended``."""

    def __init__(self, world: World, name: str, handles: Handles) -> None:
        self._world = world
        self.name = name
        self._handles = handles
        self._starts = 0
        self.links: list[Link] = []
        self.process: Process | None = None

    def start(self) -> None:
        """A new process."""
        world = self._world
        self._starts += 1
        rng = world.rng(f"redrive {self.name} {self._starts}")
        process = self.process = Process(world.loop, f"{self.name}#{self._starts}", base=rng.uniform(10.0, 1e5))
        self.links = [Link(process, name, rng, 2.0, world.called) for name in ("table", "letters")]
        self.store = MemoryLeaseStore(world.table, world.settings.application, process.wall, self.links[0])
        self.box = MemoryLetterBox(world, self.links[1])
        self._rng = rng
        world.history.note("redrive started", process.name)
        process.spawn(self._main(process), f"main of {process.name}")

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self._world.history.note("redrive killed", self.process.name)
            self._world.loop.kill(self.process)
            self.process.alive = False
            self.process = None

    def token(self) -> str:
        """Never the same twice."""
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    async def _main(self, process: Process) -> None:
        try:
            await self._run(process)
        except* StreamConsumerError as group:
            self._world.history.note("redrive ended", process.name, first_error(group))
        except* Exception as error:  # noqa: BLE001  # what nothing should raise
            self._world.history.violated("no bug", f"{process.name} ended by itself: {error!r}")
        self._world.loop.kill(process)
        if self.process is process:
            self.process = None

    async def _run(self, process: Process) -> None:
        member = SimulatedMember(self.store, process, name_of(f"redrive/{process.name}", self.token(), DURATION))
        await member.renewal.open()
        redrive = ParkedRedrive(self.store, self.box, self._handle, member, self.token)
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(member.renewal.run())
            digests = [one.key.digest for one in await self.store.parked() if one.key is not None]
            async with asyncio.TaskGroup() as keys:
                for digest in digests:
                    keys.create_task(redrive.redrive(digest))
            renewing.cancel()
        await member.renewal.close()

    async def _handle(self, records: Sequence[StreamRecord], shard: ParkedShard) -> int:
        world = self._world
        await asyncio.sleep(self._rng.uniform(0.0, 0.3))
        for count, record in enumerate(records):
            item = world.checkers.item(shard.shard_id, record.sequence_number)
            if not self._handles(shard.shard_id, record.sequence_number):
                return count
            world.checkers.check_order(item, self.name)
            item.redriven += 1
            world.history.note("redriven", item.key, item.version)
        return len(records)


class SimulatedMember:
    """``redrive.parked.Member``."""

    def __init__(self, store: MemoryLeaseStore, process: Process, incarnation: str) -> None:
        self._store = store
        self._process = process
        self.incarnation = incarnation
        self.duration = DURATION
        self.validity = SessionValidity()
        session = SessionRow(incarnation, stream_id="redrive")
        self.renewal = SessionRenewal(store, process, session, self.validity, lambda: True)
        self._observer = Observer(DURATION)
        self._asked: dict[str, None] = {}  # all are observed together: what is left out is forgotten

    def require(self) -> None:
        if not self.validity.holds(self._process.monotonic()):
            raise SessionFenced(f"{self.incarnation} was not renewed in time")

    async def is_dead(self, incarnation: str) -> bool:
        sessions = await self._store.sessions()
        now = self._process.monotonic()
        self._asked[incarnation] = None
        self._observer.observe(sessions, list(self._asked), now)
        row = next((one for one in sessions if one.incarnation == incarnation), None)
        if row is not None and row.fenced:
            return True
        if incarnation not in self._observer.expired(now):
            return False
        return row is None or await self._store.fence_session(incarnation, row.counter)


class MemoryLetterBox:
    """``ports.parked_letters.ParkedLetterBox`` over the letters of the simulation."""

    def __init__(self, world: World, link: Link) -> None:
        self._world = world
        self._link = link

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        park_id, shard_id, number = shard.park_id, shard.shard_id, str(ordinal)

        def look() -> list[ParkedLetter]:
            return [
                self._read(one)
                for one in self._world.dead_letters.delivered
                if (found := one.attributes).get("park_id") == park_id  # first: of few, the other two of many
                and found.get("ordinal") == number
                and found.get("shard_id") == shard_id
            ]

        return await self._link.carry("find", look)

    async def remove(self, letter: ParkedLetter) -> None:
        delivered = self._world.dead_letters.delivered

        def drop() -> None:
            delivered[:] = [one for one in delivered if one is not letter.handle]

        await self._link.carry("remove", drop)

    def _read(self, letter: DeadLetter) -> ParkedLetter:
        document = whole_document(letter.document, self._world.table)
        text = document[document.rindex(b'"payload":') + len(b'"payload":') : -1]
        return ParkedLetter(tuple(records_from_event(text)), letter)
