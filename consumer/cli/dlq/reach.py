"""What the verbs reach: the letters of a place, their payloads, and how the source orders records."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click

from consumer.aws.adapters import MainAdapters
from consumer.aws.letter_adapters import LetterAdapters
from consumer.domain.errors import MisconfiguredResource, Unavailable
from consumer.domain.letter_selection import Selection
from consumer.domain.parking import Parked
from consumer.ports.letter_store import LetterStore, PayloadStore, Waiting
from consumer.ports.parked_letters import ParkedLetterBox
from consumer.ports.source import StreamDescription
from consumer.redrive.gathering import Gathered, Gathering, Spool
from consumer.redrive.held_letters import HeldLetters
from consumer.redrive.parked_keys import selected_keys
from consumer.redrive.session import RedriveSession
from consumer.settings.model import Settings
from consumer.worker.clock import HeardClock, SystemClock
from consumer.worker.process_name import process_name


@dataclass(frozen=True, slots=True)
class Reach:
    """Open while a verb runs; everything that is held is put back at its end."""

    settings: Settings
    main: MainAdapters
    adapters: LetterAdapters
    clock: HeardClock
    store: LetterStore
    payloads: PayloadStore
    held: HeldLetters
    spool: Spool
    parked_by_name: ParkedLetterBox | None  # None where letters of parked keys have to be looked for

    async def source(self) -> StreamDescription:
        """The stream of the source. Unavailable, MisconfiguredResource."""
        return await self.main.source.describe()

    async def source_if_there(self) -> StreamDescription | None:
        """None when it cannot be asked: letters can be looked at without it."""
        try:
            return await self.source()
        except (Unavailable, MisconfiguredResource):
            return None

    def gathering(self, stream: StreamDescription | None) -> Gathering:
        key_of = None if stream is None else stream.format.key_of
        application = self.settings.application
        return Gathering(self.store, self.payloads, self.held, self.spool, application, key_of)

    @asynccontextmanager
    async def claimed(self) -> AsyncIterator[RedriveSession]:
        """A session of the fleet that has claimed the place. RedriveUnderWay, Unavailable."""
        await self.main.store.prepare(create=self.settings.leases.create_table)
        duration = self.settings.leases.duration
        session = RedriveSession(self.main.store, self.clock, process_name(), str(uuid.uuid4()), duration)
        claims = await self.adapters.claims()
        async with session.opened():
            claim = await session.take(claims, self.store.place)
            try:
                yield session
            finally:
                await session.give_back(claims, claim)


@asynccontextmanager
async def reached(settings: Settings, place: str) -> AsyncIterator[Reach]:
    """The place, found and checked. Unavailable, MisconfiguredResource."""
    clock = HeardClock(SystemClock())
    async with MainAdapters(settings, lambda *_: None, clock) as main:
        adapters = LetterAdapters(settings, main, clock)
        store = await adapters.letters(place)
        await store.prepare()
        held = HeldLetters(store)
        with Spool() as spool:
            async with held.kept():
                payloads = await adapters.payloads()
                by_name = await adapters.parked_by_name(place, payloads)
                yield Reach(settings, main, adapters, clock, store, payloads, held, spool, by_name)


@dataclass(frozen=True, slots=True)
class Look:
    """Letters as a verb that changes nothing sees them. ``waiting`` is what the place held before; None where all of it
    is shown."""

    gathered: Gathered
    waiting: Waiting | None
    gathering: Gathering
    parked: Sequence[Parked] | None  # None when the lease table does not say


@asynccontextmanager
async def looked(
    settings: Settings, place: str, selection: Selection, limit: int | None, *, payloads: bool
) -> AsyncIterator[Look]:
    """All letters that can be had, while this is open; then they are put back."""
    async with reached(settings, place) as reach:
        stream = await reach.source_if_there()
        waiting = await reach.store.waiting()
        gathering = reach.gathering(stream)
        parked: Sequence[Parked] | None = None
        try:
            parked = selected_keys(await reach.main.store.parked(), selection, None)
        except (Unavailable, MisconfiguredResource) as error:
            click.echo(f"which keys are parked cannot be read: {error}", err=True)
        yield Look(await gathering.gather(selection, limit, payloads=payloads), waiting, gathering, parked)


def say_what_is_not_shown(gathered: Gathered, waiting: Waiting | None) -> None:
    """On standard error: what is no letter of ours, and what a queue does not show."""
    for name, reason in list(gathered.foreign.items())[:5]:
        click.echo(f"ignored: {name} {reason}", err=True)
    if len(gathered.foreign) > 5:
        click.echo(f"ignored: {len(gathered.foreign) - 5} more", err=True)
    if waiting is not None:
        click.echo(
            f"a queue shows a sample: it held about {waiting.visible} messages, and {waiting.hidden} more are in the "
            "hands of somebody else now",
            err=True,
        )
