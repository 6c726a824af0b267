"""The lease table of another program, the Kinesis Client Library: read as a whole, never written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from consumer.aws.errors import ApiCaller
from consumer.aws.kcl_items import kcl_table_problem, reading_of
from consumer.aws.session import AwsSession
from consumer.aws.table_rows import Item
from consumer.domain.errors import MisconfiguredResource, ResourceMissing, Throttled
from consumer.domain.kcl_leases import KclReading
from consumer.ports.time import ServiceClock
from consumer.settings.model import Settings

THROTTLED_PAUSE: Final = 0.5  # seconds before a throttled page is asked for again, doubled each time
THROTTLED_ATTEMPTS: Final = 7  # of one page: the KCL 1.x gave its table ten read units a second


class KclTable:
    """Args:
    client: a dynamodb client of ``AwsSession``.
    caller: bounds, translates and counts the calls.
    table: name or ARN of the KCL's lease table.
    """

    def __init__(self, client: Any, caller: ApiCaller, table: str) -> None:
        self._client = client
        self._caller = caller
        self._table = table
        self._resource = f"table {table}"

    async def check(self) -> None:
        """ResourceMissing when there is no such table, MisconfiguredResource when it holds no leases of the KCL."""
        try:
            call = self._client.describe_table(TableName=self._table)
            answer = await self._caller.call("DescribeTable", self._resource, call)
        except ResourceMissing as error:
            hint = "check its name, the region and the account; the KCL names it after its application"
            raise ResourceMissing(self._resource, hint) from error
        if problem := kcl_table_problem(answer["Table"]):
            raise MisconfiguredResource(f"{self._resource} is no lease table of the KCL: {problem}")

    async def read(self) -> KclReading:
        """All rows, every page, consistently. What the service raises; nothing for what is in the rows."""
        items: list[Item] = []
        start: dict[str, Any] = {}
        while True:
            answer = await self._page(start)
            items += answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return reading_of(items)
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def _page(self, start: dict[str, Any]) -> dict[str, Any]:
        pause = THROTTLED_PAUSE
        for _ in range(THROTTLED_ATTEMPTS - 1):
            try:
                return await self._scan(start)
            except Throttled:
                await asyncio.sleep(pause)
                pause *= 2
        return await self._scan(start)

    async def _scan(self, start: dict[str, Any]) -> dict[str, Any]:
        call = self._client.scan(TableName=self._table, ConsistentRead=True, **start)
        answer: dict[str, Any] = await self._caller.call("Scan", self._resource, call)
        return answer


@asynccontextmanager
async def kcl_table(settings: Settings, clock: ServiceClock, table: str, region: str | None) -> AsyncIterator[KclTable]:
    """The table on a session of its own; ``region``, when it is not that of the stream."""
    session = AwsSession(
        region or settings.aws.region,
        settings.aws.endpoints.secret_urls(),
        max_pool_connections=1,
        clock=clock,
        heard=clock.heard,
    )
    async with session:
        caller = ApiCaller(None, session.credentials_refused)
        yield KclTable(await session.client("dynamodb"), caller, table)
