"""Whether everything that the daemon will need is there and may be used: asked once, changing nothing.

The stream is described, listed and read once. A table whose changes come through Kinesis is asked whether they do, if
that is allowed. Writes to the lease table are asked for on a condition that never holds. The destination is looked at;
that it takes a dead letter cannot be found out without sending one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from consumer.aws.adapters import MainAdapters
from consumer.domain.errors import MisconfiguredResource, PermissionDenied, ResourceMissing, StreamConsumerError
from consumer.ports.source import Position, StreamDescription
from consumer.ports.time import ServiceClock
from consumer.settings.model import Settings

Finding = tuple[str, StreamConsumerError | None]
_NO_IMAGES = (
    "the stream's view type is KEYS_ONLY: records hold no images, so NewImage and OldImage are never there "
    "(disable the stream, and enable it with NEW_AND_OLD_IMAGES)"
)
Question = Callable[[], Awaitable[object]]


async def probe(settings: Settings, clock: ServiceClock) -> tuple[list[Finding], list[str]]:
    """Ask for everything: what was asked, and what is wrong with it (None: nothing). No answer stops the next
    question, so all that is missing is found at once. And warnings: what works and may surprise."""
    async with MainAdapters(settings, lambda *_: None, clock) as adapters:
        probed = _Probe(settings, adapters)
        findings = await probed.run()
        return findings, probed.warnings


class _Probe:
    def __init__(self, settings: Settings, adapters: MainAdapters) -> None:
        self._settings = settings
        self._adapters = adapters
        self._findings: list[Finding] = []
        self.warnings: list[str] = []
        self.description: StreamDescription | None = None
        self._table: str | None = None  # the source table, once its stream was found

    async def run(self) -> list[Finding]:
        await self._stream()
        await self._lease_table()
        letters = self._adapters.dead_letters
        if letters is not None:
            await self._ask(f"dead letters {letters.destination}", letters.prepare)
        return self._findings

    async def _ask(self, what: str, *questions: Question) -> bool:
        """One finding for each question that fails, or one that says that none did."""
        before = len(self._findings)
        for question in questions:
            try:
                await question()
            except StreamConsumerError as error:
                self._findings.append((what, error))
        if len(self._findings) > before:
            return False
        self._findings.append((what, None))
        return True

    async def _stream(self) -> None:
        if await self._ask("stream", self._describe):
            if self._settings.filters:
                await self._ask("filters", self._filters)
            if self._settings.on_failure.redact:
                await self._ask("redaction", self._redaction)
            await self._ask("shards", self._read_a_page)
            await self._streaming()

    async def _describe(self) -> None:
        self.description = await self._adapters.source.describe()
        self._table = self.description.source_id
        if self.description.view_type == "KEYS_ONLY":
            self.warnings.append(_NO_IMAGES)

    async def _filters(self) -> None:
        stream = self.description
        if stream is not None and (
            never := self._settings.compiled_filters().never_match(stream.view_type, stream.keys)
        ):
            raise MisconfiguredResource("; ".join(never))

    async def _redaction(self) -> None:
        stream, redaction = self.description, self._settings.on_failure.redaction
        if stream is not None and redaction is not None:
            redaction.require_no_keys(stream.keys, stream.name)

    async def _read_a_page(self) -> None:
        source = self._adapters.source
        for shard in (await source.list_shards())[-1:]:
            iterator = await source.iterator(shard.shard_id, Position("TRIM_HORIZON"))
            await source.get_records(shard.shard_id, iterator, 1)

    async def _streaming(self) -> None:
        """Whether the table puts changes into the stream. To be allowed to ask that is no duty."""
        streaming, stream = self._adapters.streaming, self.description
        if streaming is None or stream is None:
            return
        what = f"Kinesis destination of table {streaming.table}"
        try:
            obstacle = await streaming.obstacle(stream.stream_arn)
        except PermissionDenied as error:
            self._findings.append(
                (f"{what} (not looked at, because {error.action} is not allowed, and need not be)", None)
            )
        except StreamConsumerError as error:
            self.warnings.append(f"{what}: cannot be looked at: {error}")
        else:
            if obstacle:
                self.warnings.append(f"table {streaming.table}: {obstacle}")
            else:
                self._findings.append((what, None))

    async def _lease_table(self) -> None:
        leases, store = self._settings.leases, self._adapters.store
        what = f"lease table {leases.table}"
        try:
            await store.prepare(create=False)
        except ResourceMissing as error:
            if leases.create_table:
                self._findings.append((f"{what} (is created by run)", None))
            else:
                self._findings.append((what, error))
        except StreamConsumerError as error:
            self._findings.append((what, error))
        else:
            await self._ask(what, *store.rehearsals(self._table))
