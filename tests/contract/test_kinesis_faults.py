"""The Kinesis source under what AWS does to a reader, and local servers do not: the fault proxy does it.

Each answer is the right error or is borne: nothing is skipped without a word, nothing is called lost that is not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import aiobotocore.session
import pytest

from consumer.aws.errors import ApiCaller, StrangeAnswer, Unanswered
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.aws.kinesis_page_reader import KinesisPageReader
from consumer.aws.kinesis_streams import KinesisStreamSource
from consumer.aws.session import AwsSession
from consumer.domain.completeness import SLACK
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    KeyUnusable,
    PermissionDenied,
    ResourceMissing,
    Throttled,
    TrimmedData,
)
from consumer.domain.kinesis_numbers import service_number
from consumer.domain.kinesis_resume import LOOKS
from consumer.domain.shards import DAY
from consumer.ports.source import Position
from tests.conftest import unique
from tests.support.kinesis_proxy import KinesisProxy, Mode
from tests.support.kinesis_servers import KinesisServer
from tests.support.kinesis_streams import REGION, KinesisStream

HORIZON = Position("TRIM_HORIZON")
SHARD = "shardId-000000000000"
MODES: tuple[Mode, ...] = ("horizon", "empty", "refused")


@dataclass
class Reader:
    """A source behind the proxy. ``now`` can be moved, as its clock."""

    stream: KinesisStream
    proxy: KinesisProxy
    session: AwsSession
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    late: float = 0.0

    async def source(self) -> KinesisStreamSource:
        client = await self.session.client("kinesis")
        caller = ApiCaller(lambda operation, outcome, _: self.outcomes.update([(operation, outcome)]))
        calls = KinesisCalls(client, caller, KinesisPageReader(client), stream=self.stream.name, stream_arn=None)
        return KinesisStreamSource(calls, wall=lambda: time.time() + self.late, monotonic=self.monotonic)

    def monotonic(self) -> float:
        return time.monotonic() + self.late

    async def put(self, *data: bytes) -> list[str]:
        """Numbers of the books."""
        if data:
            await self.stream.put(*data)
        found, _ = await read(await self.source(), SHARD)
        return [record.number for record in found][len(found) - len(data) :]

    async def trim(self, number: str, mode: Mode = "horizon", *, kept: bool = False) -> None:
        await self.proxy.trim(self.stream.name, SHARD, service_number(number)[0], mode, kept=kept)


@asynccontextmanager
async def reader_of(server: KinesisServer, shards: int = 1) -> AsyncIterator[Reader]:
    bare = aiobotocore.session.get_session()
    async with (
        KinesisProxy(server.endpoint) as proxy,
        AwsSession(REGION, {"kinesis": proxy.endpoint}) as session,
        bare.create_client("kinesis", region_name=REGION, endpoint_url=server.endpoint) as owner,
    ):
        stream = KinesisStream(unique("changes"), await session.client("kinesis"), owner)
        await stream.create(shards)
        yield Reader(stream, proxy, session)
        await stream.delete()


@pytest.fixture
async def reader(kinesalite, aws_environment):
    async with reader_of(kinesalite) as reader:
        yield reader


@pytest.fixture
async def readers(kinesalite, aws_environment):
    """``readers(shards)`` for another number of shards."""
    return partial(reader_of, kinesalite)


@pytest.fixture
async def local_readers(kinesis_local, aws_environment):
    """The same on the server whose pages name the children of a shard."""
    return partial(reader_of, kinesis_local)


async def read(source, shard_id, position=HORIZON, *, limit=1000):
    """Records up to the end of the shard, or until the tip; and whether it ended."""
    iterator, found, empty = await source.iterator(shard_id, position), [], 0
    for _ in range(150):
        page = await source.get_records(shard_id, iterator, limit)
        found += page.records
        iterator = page.next_iterator
        empty = empty + 1 if page.at_tip and not page.count else 0
        if iterator is None or empty == 2:  # one of the servers shows the end with the second
            return found, iterator is None
    raise AssertionError("it never comes to the tip")


def data_of(records):
    return [record.data for record in records]


class TestTrimmed:
    """The record at which reading goes on is gone, in each of the three ways that AWS was seen to show it."""

    @pytest.mark.parametrize("later", [0, 3], ids=["nothing is left", "some are left"])
    async def test_records_may_be_lost(self, reader, later):
        numbers = await reader.put(b"settled", b"lost")
        await reader.put(*(b"later-%d" % number for number in range(later)))
        source = await reader.source()
        for mode, complete_at in product(MODES, (0.0, time.time() - DAY + SLACK - 60)):
            await reader.trim(numbers[1], mode)
            position = Position("AFTER_SEQUENCE_NUMBER", numbers[0], complete_at=complete_at)
            with pytest.raises(TrimmedData, match=f"record {numbers[0][:-7]}, the last one known"):
                await read(source, SHARD, position)
            with pytest.raises(TrimmedData):
                await read(source, SHARD, Position("AT_SEQUENCE_NUMBER", numbers[0]))
            assert len((await read(source, SHARD))[0]) == later, "from the horizon what is left comes"

    @pytest.mark.parametrize("later", [0, 3], ids=["nothing is left", "some are left"])
    async def test_nothing_is_lost_where_nothing_was_left_to_read(self, reader, later):
        [_, last] = await reader.put(b"older", b"settled")
        await reader.put(*(b"later-%d" % number for number in range(later)))
        source = await reader.source()
        for mode in MODES:
            await reader.trim(last, mode)
            position = Position("AFTER_SEQUENCE_NUMBER", last, complete_at=time.time() - 3600)
            records, ended = await read(source, SHARD, position)
            assert (data_of(records), ended) == ([b"later-%d" % number for number in range(later)], False)

    async def test_what_was_read_before_does_not_come_again(self, reader):
        """Only the number is refused and its records are still there: over several pages from the horizon nothing
        older comes through, which would be out of order for the books."""
        numbers = await reader.put(*(b"%02d" % number for number in range(10)))
        source = await reader.source()
        position = Position("AFTER_SEQUENCE_NUMBER", numbers[6], complete_at=time.time() - 60)
        for mode in ("empty", "refused"):
            await reader.trim(numbers[6], mode, kept=True)
            records, _ = await read(source, SHARD, position, limit=2)
            assert data_of(records) == [b"07", b"08", b"09"]

    async def test_a_lower_retention_counts_at_once(self, reader):
        """It was a week when the stream was described, and is a day now: what was seen complete two days ago says
        nothing any more."""
        reader.proxy.retention_hours[reader.stream.name] = 168
        source = await reader.source()
        await source.describe()
        [number] = await reader.put(b"settled")
        await reader.trim(number)
        position = Position("AFTER_SEQUENCE_NUMBER", number, complete_at=time.time() - 2 * DAY)
        assert data_of((await read(source, SHARD, position))[0]) == []
        reader.proxy.retention_hours[reader.stream.name] = 24
        reader.late = 10.0
        with pytest.raises(TrimmedData):
            await read(source, SHARD, position)
        assert source.retention == DAY

    async def test_the_place_inside_of_the_retention_that_stays_empty(self, reader):
        """As after a retention that was raised: the place is a day behind, of a week."""
        [number] = await reader.put(b"settled")
        await reader.trim(number, "empty")
        reader.proxy.retention_hours[reader.stream.name] = 168
        source = await reader.source()
        await source.describe()
        assert source.retention == 7 * DAY
        with pytest.raises(TrimmedData):
            await read(source, SHARD, Position("AFTER_SEQUENCE_NUMBER", number))

    async def test_a_page_that_only_has_the_record_itself_and_ends_the_shard(self, reader):
        [number] = await reader.put(b"settled")
        await reader.stream.split(SHARD)
        source = await reader.source()
        assert await read(source, SHARD, Position("AFTER_SEQUENCE_NUMBER", number)) == ([], True)

    async def test_gone_from_a_shard_that_has_ended(self, reader):
        [number] = await reader.put(b"settled")
        await reader.stream.split(SHARD)
        await reader.trim(number)
        source = await reader.source()
        with pytest.raises(TrimmedData):
            await read(source, SHARD, Position("AFTER_SEQUENCE_NUMBER", number))
        complete = Position("AFTER_SEQUENCE_NUMBER", number, complete_at=time.time() - 60)
        assert await read(source, SHARD, complete) == ([], True)


class TestIterators:
    async def test_expiry_in_the_middle(self, reader):
        """Going on AFTER the last record that was fetched: none is missing, none comes twice."""
        numbers = await reader.put(*(b"%d" % number for number in range(9)))
        source, found = await reader.source(), []
        position = HORIZON
        while len(found) < 9:
            iterator = await source.iterator(SHARD, position)
            page = await source.get_records(SHARD, iterator, 3)
            found += page.records
            await reader.proxy.expire_iterators()
            with pytest.raises(ExpiredIterator, match=SHARD):
                await source.get_records(SHARD, page.next_iterator, 3)
            if found:
                position = Position("AFTER_SEQUENCE_NUMBER", found[-1].number)
        assert [record.number for record in found] == numbers

    async def test_an_iterator_of_a_stream_that_was_made_anew(self, reader):
        """Its ids of shards are the same: what is known of it ends at once, also for iterators."""
        source = await reader.source()
        stream_id = (await source.describe()).stream_id
        old = source.of(stream_id)
        iterator = await old.iterator(SHARD, HORIZON)
        await made_anew(reader)
        reader.late = 10.0
        assert await source.latest_stream() != stream_id
        await reader.stream.put(b"new")
        with pytest.raises(ResourceMissing, match="has its name now"):
            await old.get_records(SHARD, iterator, 10)


async def made_anew(reader: Reader) -> None:
    created = (await reader.stream.summary())["StreamCreationTimestamp"]
    await reader.stream.delete()
    while True:
        try:
            await reader.stream.owner.create_stream(StreamName=reader.stream.name, ShardCount=1)
        except reader.stream.owner.exceptions.ResourceInUseException:
            continue
        if int((await reader.stream.active())["StreamCreationTimestamp"].timestamp()) > int(created.timestamp()):
            return
        await reader.stream.delete()


REFUSALS = {
    "ProvisionedThroughputExceededException": Throttled,
    "KMSThrottlingException": Throttled,
    "KMSDisabledException": KeyUnusable,
    "KMSInvalidStateException": KeyUnusable,
    "KMSNotFoundException": KeyUnusable,
    "KMSOptInRequired": KeyUnusable,
    "KMSAccessDeniedException": PermissionDenied,
    "AccessDeniedException": PermissionDenied,
    "InternalFailure": Unanswered,
}


class TestAnswers:
    async def test_the_end_of_an_open_shard_is_not_believed(self, reader):
        """The KCL calls it invalid, too. Its records come with the next answer."""
        await reader.put(b"a")
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        await reader.proxy.end_without_children(reader.stream.name, SHARD)
        with pytest.raises(StrangeAnswer, match=f"{SHARD} is open"):
            await source.get_records(SHARD, iterator, 10)
        assert data_of((await source.get_records(SHARD, iterator, 10)).records) == [b"a"]

    async def test_the_end_of_a_shard_that_no_listing_names_is_not_believed(self, reader):
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        await reader.proxy.fault("ListShards", "rewrite", old=SHARD, new="shardId-000000000001")
        await reader.proxy.end_without_children(reader.stream.name, SHARD)
        with pytest.raises(StrangeAnswer, match=f"{SHARD} is not listed"):
            await source.get_records(SHARD, iterator, 10)

    async def test_what_is_no_page(self, reader):
        await reader.put(b"a", b"b")
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        faults = (
            reader.proxy.without_records(),
            reader.proxy.fault("GetRecords", "truncate"),
            reader.proxy.fault("GetRecords", "truncate", honest_length=False),
            reader.proxy.fault("GetRecords", "anonymous"),
            reader.proxy.fault("GetRecords", "reply", status=200, body="<html>Please sign in</html>"),
        )
        for fault in faults:
            await fault
            with pytest.raises(Unanswered):
                await source.get_records(SHARD, iterator, 10)
            assert data_of((await source.get_records(SHARD, iterator, 10)).records) == [b"a", b"b"]

    @pytest.mark.parametrize("operation", ["GetRecords", "GetShardIterator"])
    async def test_refusals(self, reader, operation):
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        key = "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555"
        for code, expected in REFUSALS.items():
            reader.outcomes.clear()
            status = 500 if expected is Unanswered else 400
            await reader.proxy.fault(operation, code=code, status=status, message=f"{key} is disabled.")
            reads = operation == "GetRecords"
            with pytest.raises(expected) as caught:
                await (source.get_records(SHARD, iterator, 10) if reads else source.iterator(SHARD, HORIZON))
            if code.startswith("KMS") and expected is not Throttled:
                assert "kms:Decrypt" in str(caught.value)
                assert key in str(caught.value)
            counted = {Throttled: "throttled", Unanswered: "error"}.get(expected, "denied")
            assert reader.outcomes[operation, counted] == 1
            assert list((await source.get_records(SHARD, iterator, 10)).records) == []

    async def test_throttles_are_counted(self, reader):
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        reader.proxy.throttles, throttled = True, 0
        for _ in range(12):
            try:
                iterator = (await source.get_records(SHARD, iterator, 10)).next_iterator
            except Throttled:
                throttled += 1
        assert throttled == reader.outcomes["GetRecords", "throttled"] == reader.proxy.throttled["GetRecords"] > 0

    async def test_an_account_that_asks_too_often(self, reader):
        source = await reader.source()
        await reader.proxy.fault("DescribeStreamSummary", code="LimitExceededException", status=400)
        with pytest.raises(Throttled):
            await source.describe()
        assert (await source.describe()).status == "ENABLED"


class TestListings:
    async def test_more_than_a_page(self, readers):
        """1,200 shards; a page has at most a thousand."""
        async with readers(1200) as reader:
            source = await reader.source()
            listed = await source.list_shards()
            assert len({shard.shard_id for shard in listed}) == len(listed) == 1200
            assert reader.outcomes["ListShards", "ok"] == 2
            reader.proxy.most_listed = 100
            assert await source.list_shards() == listed
            assert reader.outcomes["ListShards", "ok"] == 14

    async def test_a_token_that_has_expired_begins_anew(self, readers):
        async with readers(5) as reader:
            reader.proxy.most_listed = 2
            source = await reader.source()
            await reader.proxy.fault("ListShards", code="ExpiredNextTokenException", status=400, skip=2)
            assert len(await source.list_shards()) == 5
            await reader.proxy.fault("ListShards", code="ExpiredNextTokenException", status=400, skip=1, times=100)
            with pytest.raises(DependencyError, match="ExpiredNextToken"):
                await source.list_shards()

    async def test_a_page_that_fails_leaves_no_shard_out(self, readers):
        async with readers(5) as reader:
            reader.proxy.most_listed = 2
            source = await reader.source()
            await reader.proxy.fault("ListShards", code="LimitExceededException", status=400, skip=1)
            with pytest.raises(Throttled):
                await source.list_shards()

    async def test_an_expired_shard(self, reader):
        source = await reader.source()
        iterator = await source.iterator(SHARD, HORIZON)
        await reader.proxy.vanish(reader.stream.name, SHARD)
        assert await source.list_shards() == []
        for asking in (
            source.get_records(SHARD, iterator, 10),
            source.iterator(SHARD, HORIZON),
            source.iterator(SHARD, Position("AFTER_SEQUENCE_NUMBER", "1" * 60)),
        ):
            with pytest.raises(ResourceMissing, match=f"{SHARD} of"):
                await asking


class TestNumberOfCalls:
    """An account has 20 DescribeStreamSummary a second, for all workers of all its applications."""

    async def test_a_thousand_shards_ask_once_which_stream_it_is(self, readers):
        async with readers(300) as reader:
            source = await reader.source()
            await source.describe()
            shards = [shard.shard_id for shard in await source.list_shards()]
            calls = await reader.proxy.calls_of("DescribeStreamSummary")
            reader.late = 60.0  # the next look is a minute later
            await asyncio.gather(*(source.iterator(shard_id, HORIZON) for shard_id in shards))
            assert await reader.proxy.calls_of("DescribeStreamSummary") == calls + 1
            assert await reader.proxy.calls_of("GetShardIterator") == 300
            reader.late = 120.0
            await reader.proxy.fault("DescribeStreamSummary", code="LimitExceededException", status=400, times=1)
            asked = await asyncio.gather(
                *(source.iterator(shard_id, HORIZON) for shard_id in shards), return_exceptions=True
            )
            assert {type(one) for one in asked} == {Throttled}, "those that ask together share the failure, too"
            assert await reader.proxy.calls_of("DescribeStreamSummary") == calls + 2
            assert await source.iterator(SHARD, HORIZON)

    async def test_re_sharding_needs_no_listing_where_pages_name_the_children(self, local_readers):
        async with local_readers(4) as reader:
            source = await reader.source()
            await source.describe()
            parents = [shard.shard_id for shard in await source.list_shards()]
            await reader.stream.resize(8)
            before = {name: await reader.proxy.calls_of(name) for name in ("DescribeStreamSummary", "ListShards")}
            for shard_id in parents:
                assert (await read(source, shard_id))[1]
                children = await source.child_shards(shard_id)
                assert children
                assert all(shard_id in child.parents for child in children)
            after = {name: await reader.proxy.calls_of(name) for name in before}
            assert after["ListShards"] == before["ListShards"]
            assert after["DescribeStreamSummary"] <= before["DescribeStreamSummary"] + 1

    async def test_going_on_costs_one_iterator(self, reader):
        [number] = await reader.put(b"settled")
        source = await reader.source()
        before = await reader.proxy.calls_of("GetShardIterator")
        assert await read(source, SHARD, Position("AFTER_SEQUENCE_NUMBER", number)) == ([], False)
        assert await reader.proxy.calls_of("GetShardIterator") == before + 1


async def test_children_without_parents_wait_for_a_listing(local_readers):
    """An answer that names children and not their parents is not valid: a child that waits for no parent would be read
    before the other parent's records."""
    async with local_readers(2) as reader:
        source = await reader.source()
        one, two = [shard.shard_id for shard in await source.list_shards()]
        child = await reader.stream.merge(one, two)
        rewrite = {"old": '"ParentShards"', "new": '"Odd"'}
        await reader.proxy.fault("GetRecords", "rewrite", **rewrite, times=10)
        [found] = await source.child_shards(one)
        assert (found.shard_id, found.parents) == (child, (one, two))
        assert (await read(source, two))[1]
        [found] = await source.child_shards(two)
        assert (found.shard_id, found.parents) == (child, (one, two))


async def test_the_looks_at_an_empty_tip_are_few(reader):
    """A record that is gone without a trace is noticed within seconds of reads near the tip."""
    [number] = await reader.put(b"settled")
    await reader.trim(number)
    source = await reader.source()
    iterator = await source.iterator(SHARD, Position("AFTER_SEQUENCE_NUMBER", number))
    for _ in range(LOOKS - 1):
        page = await source.get_records(SHARD, iterator, 10)
        assert not page.at_tip
        iterator = page.next_iterator
    with pytest.raises(TrimmedData):
        await source.get_records(SHARD, iterator, 10)
