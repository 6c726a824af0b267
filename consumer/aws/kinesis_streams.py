"""A Kinesis data stream, behind the ``StreamSource`` port.

The rules of the calls are those of the Kinesis API reference. Where it leaves open what a trimmed position answers,
``domain/kinesis_resume.py`` has what is done about it.
"""

from __future__ import annotations

import copy
import datetime as dt
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal

from consumer.aws.inspection import http_time
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_name import KinesisName
from consumer.aws.kinesis_pages import KinesisShard
from consumer.aws.kinesis_shards import KinesisShards, names_children
from consumer.domain.completeness import SLACK
from consumer.domain.errors import DependencyError, ResourceMissing, TrimmedData
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_resume import Resume, decoded, encoded
from consumer.domain.shards import ShardInfo
from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Page, Position, StreamDescription, arn_of

_NOT_AT_TIP: Final = 0.001  # seconds behind, of a page that does not say how far: it is not known to be the last one
_STATUS: Final[Mapping[str, Literal["ENABLED", "DISABLING"]]] = {"DELETING": "DISABLING"}


class _Gone(Exception):
    """The service refuses a position."""


class KinesisStreamSource:
    """Reads the stream that ``calls`` are about.

    Args:
        calls: of one stream, by its name or its ARN.
        wall: Unix time in seconds, by the clock of the service.
        monotonic: seconds that never go back, and count while the machine is suspended; without it the loop's.
        foreign: is told how many aggregated records a page had that belong to another shard by their hash.
    """

    def __init__(
        self,
        calls: KinesisCalls,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
        foreign: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._calls = calls
        self._shards = KinesisShards(calls)
        self._wall = wall
        self._foreign = foreign
        self._name = KinesisName(calls, monotonic, self._shards.forget)
        self._pinned: str | None = None

    # --- StreamSource --------------------------------------------------------------------------------------------

    @property
    def retention(self) -> float:
        """As the service said last, which is asked about once a minute."""
        return self._name.retention

    async def describe(self) -> StreamDescription:
        """Which stream has the name now. Raises ResourceMissing when there is none, or another one than is wanted."""
        answer = await self._name.ask()
        stream_id = self._name.stream_id
        self._check_same(stream_id)
        await self._calls.prepare_pages()
        summary = answer["StreamDescriptionSummary"]
        return StreamDescription(
            stream_arn=str(summary["StreamARN"]),
            label=stream_id.rpartition("stream/")[2],
            table_name="",
            status=_STATUS.get(str(summary.get("StreamStatus")), "ENABLED"),
            view_type="NEW_AND_OLD_IMAGES",
            format=KINESIS_FORMAT,
            server_time=self._server_time(answer),
            stream_id=stream_id,
        )

    async def latest_stream(self) -> str | None:
        """Asks DescribeStreamSummary. A stream that was deleted and made anew is another one."""
        return await self._name.lately()

    def of(self, stream_id: str) -> KinesisStreamSource:
        """Client, page decoding and what is known of the shards are shared."""
        other = copy.copy(self)
        other._pinned = stream_id  # noqa: SLF001 - of the copy
        return other

    async def check_listing(self) -> None:
        await self._calls.list_shards(1)

    async def list_shards(self) -> list[ShardInfo]:
        """All shards of this very stream: it is asked for afterwards, too, as a listing may take long."""
        await self._require_same_stream()
        shards, listed_at = await self._shards.all(), self._name.monotonic()
        if self._pinned is not None:
            self._check_same(await self._name.lately(listed_at))
        return shards

    async def child_shards(self, shard_id: str) -> list[ShardInfo]:
        await self._require_same_stream()
        return await self._shards.children(shard_id)

    async def iterator(self, shard_id: str, position: Position) -> str:
        """A shard iterator, good for five minutes, with what is expected there."""
        await self._require_same_stream()
        if position.sequence_number is None:
            return encoded(None, await self._first_iterator(shard_id, position))
        wanted = position.kind == "AT_SEQUENCE_NUMBER"
        resume = Resume(position.sequence_number, wanted, position.complete_at)
        try:
            return encoded(resume, await self._iterator_at(shard_id, resume))
        except _Gone:  # if it is the shard, it cannot be read from its horizon either
            return await self._from_horizon(shard_id, resume)

    async def get_records(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The next page. TrimmedData when the record that it should begin with is gone, and others may be."""
        if self._name.stream_id:  # an iterator may outlive its stream
            self._check_same(self._name.stream_id)
        resume, position = decoded(iterator)
        if resume is not None and not resume.found:
            limit = max(limit, 2)  # the record itself, and one to go on with
        where = KinesisShard(arn_of(self._name.stream_id), shard_id, self._shards.hash_range(shard_id))
        found = await self._calls.read(where, position, limit)
        page = found.page
        if page.next_iterator is None:
            if names_children(found.children, shard_id):
                self._shards.learn_children(shard_id, found.children)
            else:
                await self._shards.check_end(shard_id, position, page)
        if found.foreign:
            self._foreign(found.foreign)
        following = await self._resumed(shard_id, page, resume)
        return await self._near_the_horizon(shard_id, page, following)

    # --- going on at a record ------------------------------------------------------------------------------------

    async def _resumed(self, shard_id: str, page: Page, resume: Resume | None) -> Page:
        if resume is None:
            return _expecting(page, None)
        first = page.records[0].number if page.records else None
        ended = page.next_iterator is None
        verdict, following = resume.after(first, behind=page.behind, ended=ended, retention=self.retention)
        if verdict == "wait":
            return _expecting(replace(page, behind=page.behind or _NOT_AT_TIP), following)
        if verdict == "gone":
            await self._check_lost_nothing(shard_id, resume)
            if first is None and not ended:
                again = await self._from_horizon(shard_id, resume)
                return replace(page, next_iterator=again, behind=page.behind or _NOT_AT_TIP)
        last = page.records[-1].number if page.records else None
        expected = replace(resume, found=True).beyond(last)
        return _expecting(replace(page, records=_wanted(page, resume)), expected)

    async def _near_the_horizon(self, shard_id: str, page: Page, following: Page) -> Page:
        """``following`` as it is, unless what follows is about to be trimmed: then an iterator may go on behind a gap
        without a word, so the next page is to begin with the last record of this one again. A page without a new record
        goes on as it is, or reading would stay there."""
        behind = page.behind or 0.0
        if following.next_iterator is None or not following.records or behind < self.retention - SLACK:
            return following
        expected, iterator = decoded(following.next_iterator)
        if expected is not None:  # older ones are still left out
            return following
        resume = Resume(following.records[-1].number)
        with suppress(_Gone):  # by now; then what comes next is not that record
            iterator = await self._iterator_at(shard_id, resume)
        return replace(following, next_iterator=encoded(resume, iterator))

    async def _iterator_at(self, shard_id: str, resume: Resume) -> str:
        """At the record. ``_Gone`` when the service does not know its number, or the shard: that it does not say."""
        at = {"StartingSequenceNumber": resume.sequence_number}
        try:
            return await self._calls.iterator(shard_id, "AT_SEQUENCE_NUMBER", **at)
        except ResourceMissing as error:
            raise _Gone from error
        except DependencyError as error:
            if not (error.code.startswith("InvalidArgument") and "StartingSequenceNumber" in str(error)):
                raise
            raise _Gone from error

    async def _from_horizon(self, shard_id: str, resume: Resume) -> str:
        iterator = await self._calls.iterator(shard_id, "TRIM_HORIZON")
        await self._check_lost_nothing(shard_id, resume)
        return encoded(replace(resume, found=True), iterator)

    async def _check_lost_nothing(self, shard_id: str, resume: Resume) -> None:
        """By the retention of now: it may have been lowered, which takes effect at once."""
        await self._require_same_stream()
        if not resume.lost_nothing(self._wall(), self.retention):
            raise TrimmedData(
                f"GetRecords on {shard_id}: record {resume.sequence_number}, the last one known, is not there any more;"
                " those behind it may have been trimmed, too"
            )

    async def _first_iterator(self, shard_id: str, position: Position) -> str:
        moment = position.timestamp if position.kind == "AT_TIMESTAMP" else position.not_before
        if moment is None or position.kind == "LATEST":
            return await self._calls.iterator(shard_id, position.kind)
        # A time to come is refused; what is written until then is left out by whoever asked for it.
        at = dt.datetime.fromtimestamp(max(0.0, min(moment, self._wall() - 1.0)), tz=dt.UTC)
        return await self._calls.iterator(shard_id, "AT_TIMESTAMP", Timestamp=at)

    # --- which stream --------------------------------------------------------------------------------------------

    async def _require_same_stream(self) -> None:
        """A stream of the same name may be another one by now, whose shards have the same ids. ResourceMissing."""
        self._check_same(await self._name.lately())

    def _check_same(self, stream_id: str) -> None:
        if self._pinned not in (None, stream_id):
            raise ResourceMissing(f"stream {self._pinned}", f"it was deleted, and {stream_id} has its name now")

    def _server_time(self, answer: Mapping[str, Any]) -> float:
        """The service's wall clock, from the HTTP Date of its answer (whole seconds)."""
        found = http_time(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", ""))
        return self._wall() if found is None else found


def _wanted(page: Page, resume: Resume) -> list[StreamRecord]:
    return [record for record in page.records if resume.is_wanted(record.number)]


def _expecting(page: Page, resume: Resume | None) -> Page:
    """The page as its reader sees it: the next iterator says what is expected there."""
    if page.next_iterator is None:
        return page
    return replace(page, next_iterator=encoded(resume, page.next_iterator))
