"""A stream, a lease table of ours and one of the KCL, all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from consumer.aws.kcl_items import reading_of
from consumer.cli.kcl_import.survey import Reach, Request, Survey, survey
from consumer.cli.kcl_import.writing import write
from consumer.domain.kcl_leases import KclReading
from consumer.domain.lease import LeaseRow
from consumer.settings.kinds import StartingPosition
from consumer.settings.load import settings_from
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from tests.support.kcl_items import Item, lease_item

CONFIG: dict[str, Any] = {
    "application": "projector",
    "source": {"table": "orders", "starting_position": "latest"},
    "handler": {"kind": "python", "target": "app:handler"},
}


class Time:
    """A clock that moves by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Kcl:
    """The KCL's table: what is in it, and what happens to it between two readings."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = list(items)
        self.meanwhile: Callable[[], None] = lambda: None
        self.reads = 0

    async def check(self) -> None: ...

    async def read(self) -> KclReading:
        self.reads += 1
        if self.reads > 1:
            self.meanwhile()
        return reading_of(self.items)


class World:
    """A stream of three shards, one of them finished with a child, and the KCL's table of it."""

    def __init__(self) -> None:
        self.time = Time()
        self.stream = MemoryStream(self.time, shards=2)
        self.numbers = {n: str(self.stream.put({"id": f"k{n}"})) for n in range(20)}
        self.left, self.parent = self.stream.open_shards()
        self.child = self.stream.roll(self.parent)
        self.time.now += 100
        self.later = {n: str(self.stream.put({"id": f"k{n}", "v": 2})) for n in range(20)}
        self.table = MemoryTable()
        self.kcl = Kcl(
            [
                lease_item(self.left, self.number_in(self.left), parents=()),
                lease_item(self.parent, "SHARD_END"),
                lease_item(self.child, "TRIM_HORIZON", parents=(self.parent,), owner=None),
            ]
        )
        self.source: Any = MemoryStreamSource(self.stream)
        self.failover_time = 10.0

    def number_in(self, shard_id: str, place: int = 3) -> str:
        return str(self.stream._shards[shard_id].numbers[place])

    def store(self) -> MemoryLeaseStore:
        return MemoryLeaseStore(self.table, "projector", self.time.wall)

    def request(self, start: StartingPosition | None = None, *, caught_up: bool = False, **sections: Any) -> Request:
        settings = settings_from(CONFIG | sections)
        return Request(settings, "kcl-table", self.failover_time, start, caught_up)

    def reach(self) -> Reach:
        return Reach(self.source, self.store(), self.kcl, self.time, sleep=self.time.sleep)

    async def survey(
        self, start: StartingPosition | None = None, *, caught_up: bool = False, **sections: Any
    ) -> Survey:
        return await survey(self.request(start, caught_up=caught_up, **sections), self.reach())

    async def import_(self, start: StartingPosition | None = None) -> int:
        """As with --yes."""
        request, reach = self.request(start), self.reach()
        found = await survey(request, reach)
        assert found.refusals == ()
        return await write(request, reach, found)

    def rows(self) -> dict[str, LeaseRow]:
        held = self.table.leases.get(("projector", self.stream.label), {})
        return {shard_id: lease.row for shard_id, lease in held.items()}


def shown(found: Survey) -> dict[str, str]:
    return {one.row.shard_id: f"{one.row.state} {one.row.frontier.low or ''}".strip() for one in found.plan.rows}
