"""Payloads of dead letters that lie apart from them: overflow objects in S3, and parts in the lease table.

Whoever may send to the queue can write any ``payloadLocation`` into a message, so nothing is fetched or deleted but
where this application keeps its payloads: under the configured folders, with the suffix of payloads, and in the rows of
this application in the configured lease table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from consumer.aws import lease_items as items
from consumer.aws.errors import ApiCaller
from consumer.aws.letter_objects import S3Place, delete_object, get_object
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import Item
from consumer.domain.dead_letter import location_in_table
from consumer.domain.errors import ResourceMissing
from consumer.domain.letter_reading import PAYLOAD_SUFFIX


class OverflowPayloads:
    """``ports.PayloadStore`` for ``s3://`` locations under some folders.

    Args:
        client: an s3 client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        folders: ``s3://bucket/prefix``: ``on_failure.overflow``.
    """

    def __init__(self, client: Any, caller: ApiCaller, folders: Sequence[str]) -> None:
        self._client = client
        self._caller = caller
        self._folders = [S3Place.of(folder) for folder in folders]

    async def fetch(self, location: str) -> bytes:
        content, _ = await get_object(self._client, self._caller, *self._place(location))
        return content

    async def delete(self, location: str) -> None:
        await delete_object(self._client, self._caller, *self._place(location))

    def _place(self, location: str) -> tuple[str, str]:
        if not location.endswith(PAYLOAD_SUFFIX) or not any(folder.holds(location) for folder in self._folders):
            known = ", ".join(f"s3://{one.bucket}/{one.prefix}" for one in self._folders) or "none is configured"
            raise ValueError(f"its payload is at {location}, which is not under on_failure.overflow ({known})")
        bucket, _, key = location.removeprefix("s3://").partition("/")
        return bucket, key


class TablePayloads(ApplicationRows):
    """``ports.PayloadStore`` for ``dynamodb://TABLE/APPLICATION/LABEL/KEY`` (``dead_letter.location_in_table``)."""

    def __init__(
        self, client: Any, caller: ApiCaller, *, table: str, application: str, clock_wall: Callable[[], float]
    ) -> None:
        super().__init__(client, caller, table=table, application=application, clock_wall=clock_wall)
        self._ours = location_in_table(table, application, "", "").removesuffix("/")

    async def fetch(self, location: str) -> bytes:
        rows = await self._parts(location)
        parts = {int(row["part"]["N"]): bytes(row["payload"]["B"]) for row in rows}
        count = int(rows[0]["parts"]["N"]) if rows else 0
        if not count or parts.keys() != set(range(count)):
            raise ResourceMissing(location, f"{len(parts)} of its {count or 'unknown'} parts are there")
        return b"".join(parts[number] for number in range(count))

    async def delete(self, location: str) -> None:
        for row in await self._parts(location):
            await self._rows.delete(row["pk"]["S"], row["sk"]["S"])

    async def _parts(self, location: str) -> list[Item]:
        label, _, key = location.removeprefix(self._ours).partition("/")
        if not location.startswith(self._ours) or not label or not key or "#" in location:
            raise ValueError(f"its payload is at {location}, not in the rows of this application ({self._ours}...)")
        return await self._rows.query(f"{self._pk(label)}#{items.LETTERS}", f"{key}#")


class LetterPayloads:
    """``ports.PayloadStore`` for both, by the scheme of the location."""

    def __init__(self, overflow: OverflowPayloads, table: TablePayloads) -> None:
        self._overflow = overflow
        self._table = table

    async def fetch(self, location: str) -> bytes:
        return await self._store(location).fetch(location)

    async def delete(self, location: str) -> None:
        await self._store(location).delete(location)

    def _store(self, location: str) -> OverflowPayloads | TablePayloads:
        return self._table if location.startswith("dynamodb://") else self._overflow
