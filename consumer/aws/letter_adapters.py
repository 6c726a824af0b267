"""From the settings to the places where dead letters lie, for commands that bring them back."""

from __future__ import annotations

from consumer.aws.adapters import MainAdapters
from consumer.aws.letter_objects import LetterObjects
from consumer.aws.letter_payloads import LetterPayloads, OverflowPayloads, TablePayloads
from consumer.aws.letter_queue import LetterQueue
from consumer.aws.parked_objects import ParkedObjects
from consumer.aws.redrive_claims import DynamoDBRedriveClaims
from consumer.aws.source_items import TableItems
from consumer.ports.items import SourceItems
from consumer.ports.letter_store import LetterStore, PayloadStore
from consumer.ports.parked_letters import ParkedLetterBox
from consumer.ports.redrive_claims import RedriveClaims
from consumer.ports.time import Clock
from consumer.settings.model import Settings


class LetterAdapters:
    """Adapters on the session of ``MainAdapters``, which has to stay open."""

    def __init__(self, settings: Settings, main: MainAdapters, clock: Clock) -> None:
        self._settings = settings
        self._main = main
        self._clock = clock
        self._caller = main.caller(main.session)

    async def letters(self, place: str) -> LetterStore:
        """The store at a place: the ARN of a queue, or ``s3://bucket/prefix``."""
        session = self._main.session
        if place.startswith("s3://"):
            return LetterObjects(await session.client("s3"), self._caller, place, self._settings.application)
        local = session.has_endpoint("sqs")
        return LetterQueue(await session.client("sqs"), self._caller, place, clock_wall=self._clock.wall, local=local)

    async def parked_by_name(self, place: str, payloads: PayloadStore) -> ParkedLetterBox | None:
        """The letters of parked keys, where their names say their place; None for a queue."""
        if not place.startswith("s3://"):
            return None
        s3 = await self._main.session.client("s3")
        return ParkedObjects(s3, self._caller, place, self._settings.application, payloads)

    async def payloads(self) -> PayloadStore:
        overflow = self._settings.on_failure.overflow
        folders = [overflow] if overflow else []
        session, settings = self._main.session, self._settings
        return LetterPayloads(
            OverflowPayloads(await session.client("s3"), self._caller, folders),
            TablePayloads(
                await session.client("dynamodb"),
                self._caller,
                table=settings.leases.table,
                application=settings.application,
                clock_wall=self._clock.wall,
            ),
        )

    async def claims(self) -> RedriveClaims:
        return DynamoDBRedriveClaims(
            await self._main.session.client("dynamodb"),
            self._caller,
            table=self._settings.leases.table,
            application=self._settings.application,
            clock_wall=self._clock.wall,
        )

    async def items(self, table: str) -> SourceItems:
        return TableItems(await self._main.session.client("dynamodb"), self._caller, table)
