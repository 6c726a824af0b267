"""What only servers can show: wrong names, denials, throttling, lost answers, cut bodies, pages of descriptions."""

import asyncio

import pytest
import structlog

from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
    Throttled,
)
from consumer.ports.source import Position
from tests.conftest import unique
from tests.support.stream_worlds import HORIZON, ids, only_shard, read, world_of


@pytest.fixture
async def proxied(local_aws, aws_environment):
    async with world_of("proxy", local_aws) as world:
        yield world


@pytest.fixture(params=["server", "proxy"])
async def served(request, local_aws, aws_environment):
    async with world_of(request.param, local_aws) as world:
        yield world


class TestNames:
    async def test_by_stream_arn(self, served):
        by_table = await served.source().describe()
        source = served.source(stream_arn=by_table.stream_arn)
        by_arn = await source.describe()
        assert (by_arn.table_name, by_arn.label, by_arn.format.ordered_by) == (served.table, by_table.label, "id")
        await served.write("a")
        assert ids((await read(source, await only_shard(source)))[0]) == ["a"]

    async def test_a_missing_table(self, served):
        with pytest.raises(ResourceMissing, match="table no-such-table does not exist"):
            await served.source(table="no-such-table").describe()

    async def test_a_missing_stream(self, served):
        wrong = (await served.source().describe()).stream_arn.rpartition("/")[0] + "/2001-01-01T00:00:00.000"
        with pytest.raises(ResourceMissing, match="2001-01-01"):
            await served.source(stream_arn=wrong).describe()

    async def test_a_table_without_stream(self, served):
        name = unique("plain")
        await served.dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        with pytest.raises(MisconfiguredResource, match=f"table {name} has no stream; enable one: aws dynamodb"):
            await served.source(table=name).describe()

    async def test_the_fast_pages_work_with_this_server(self, served):
        with structlog.testing.capture_logs() as logs:
            await served.source().describe()
        assert logs == []


class TestFaults:
    @pytest.mark.parametrize(
        ("operation", "ask"),
        [
            ("DescribeTable", lambda source, _: source.describe()),
            ("DescribeStream", lambda source, _: source.list_shards()),
            ("GetShardIterator", lambda source, shard: source.iterator(shard, HORIZON)),
            ("GetRecords", lambda source, shard: source.get_records(shard, "x", 1)),
        ],
    )
    async def test_denied_names_the_action(self, proxied, operation, ask):
        shard_id = await only_shard(proxied.source())
        await proxied.fault(operation, code="AccessDeniedException", status=400)
        with pytest.raises(PermissionDenied, match=f"dynamodb:{operation}"):
            await ask(proxied.source(), shard_id)

    async def test_throttles_are_not_swallowed_by_the_sdk(self, proxied):
        source = proxied.source()
        shard_id = await only_shard(source)
        iterator = await source.iterator(shard_id, HORIZON)
        await proxied.fault("GetRecords", code="ProvisionedThroughputExceededException", status=400, times=2)
        for _ in range(2):
            with pytest.raises(Throttled):
                await source.get_records(shard_id, iterator, 10)
        assert list((await source.get_records(shard_id, iterator, 10)).records) == []
        assert await proxied.calls_of("GetRecords") == 3

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
    @pytest.mark.parametrize("honest_length", [True, False])
    async def test_a_cut_page_is_never_an_empty_page(self, proxied, keep, honest_length):
        source = proxied.source()
        await proxied.write("a", "b")
        shard_id = await only_shard(source)
        iterator = await source.iterator(shard_id, HORIZON)
        await proxied.fault("GetRecords", "truncate", keep=keep, honest_length=honest_length)
        with pytest.raises(DependencyError):
            await source.get_records(shard_id, iterator, 10)
        assert ids((await source.get_records(shard_id, iterator, 10)).records) == ["a", "b"]

    @pytest.mark.parametrize("keep", [0.0, 0.6])
    async def test_a_cut_listing_is_never_a_short_listing(self, proxied, keep):
        source = proxied.source()
        await source.describe()
        await proxied.fault("DescribeStream", "truncate", keep=keep)
        with pytest.raises(DependencyError):
            await source.list_shards()

    @pytest.mark.parametrize("kind", ["lose_request", "lose_response"])
    async def test_lost_answers(self, proxied, kind):
        source = proxied.source()
        shard_id = await only_shard(source)
        await proxied.fault("GetShardIterator", kind)
        with pytest.raises(DependencyError):
            await source.iterator(shard_id, HORIZON)
        assert await source.iterator(shard_id, HORIZON)

    async def test_an_iterator_that_expires_between_two_calls(self, proxied):
        source = proxied.source()
        shard_id = await only_shard(source)
        iterator = await source.iterator(shard_id, HORIZON)
        await proxied.fault("GetRecords", code="ExpiredIteratorException", status=400)
        with pytest.raises(ExpiredIterator, match=shard_id):
            await source.get_records(shard_id, iterator, 10)

    async def test_a_server_that_ignores_the_child_filter(self, proxied):
        source = proxied.source()
        parent = await only_shard(source)
        [child] = await proxied.roll(parent)
        [grandchild] = await proxied.roll(child)
        proxied.proxy.ignore_shard_filter = True
        assert [shard.shard_id for shard in await source.child_shards(parent)] == [child]
        assert [shard.shard_id for shard in await source.child_shards(child)] == [grandchild]
        assert await source.child_shards(grandchild) == []

    async def test_listing_through_small_pages(self, local_aws, aws_environment):
        async with world_of("proxy", local_aws, 12) as world:
            world.proxy.describe_page = 5
            source = world.source()
            assert len(await source.list_shards()) == 12
            before = await world.calls_of("DescribeStream")
            await source.list_shards()
            assert await world.calls_of("DescribeStream") - before == 3

    async def test_a_page_that_fails_fails_the_listing(self, local_aws, aws_environment):
        async with world_of("proxy", local_aws, 12) as world:
            world.proxy.describe_page = 5
            source = world.source()
            await source.describe()
            await world.fault("DescribeStream", code="InternalServerError", status=500, skip=2)
            with pytest.raises(DependencyError):
                await source.list_shards()


async def test_many_readers_of_one_client(proxied):
    """Pages of different shards do not get mixed up while the self-test runs and after."""
    source = proxied.source()
    names = [f"key-{number}" for number in range(40)]
    await proxied.write(*names)
    shard_id = await only_shard(source)
    children = await proxied.split(shard_id)
    await proxied.write(*names, changed="yes")
    found = await asyncio.gather(*(read(source, one) for one in [shard_id, *children] * 3))
    sizes = [len(records) for records, _ in found]
    assert sizes[:3] == sizes[3:6] == sizes[6:]
    assert sizes[0] == sizes[1] + sizes[2] == 40
    again, _ = await read(source, shard_id, Position("AT_SEQUENCE_NUMBER", found[0][0][20].sequence_number))
    assert ids(again) == names[20:]
