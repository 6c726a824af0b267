"""The re-sharding and fault proxy itself: what end-to-end tests rely on."""

import json
import urllib.error
import urllib.request

import pytest

from consumer.aws.dynamodb_streams import DynamoDBStreamSource
from consumer.aws.errors import ApiCaller, StrangeAnswer, Unanswered
from consumer.aws.session import AwsSession
from consumer.ports.source import Position
from tests.conftest import REGION, SERVICES, create_source_table, unique
from tests.support.reshard_proxy import ProxyThread


@pytest.fixture
def threaded(local_aws):
    with ProxyThread(local_aws.endpoint, shards=4) as proxy:
        yield proxy


@pytest.fixture
async def session(threaded, aws_environment):
    async with AwsSession(REGION, dict.fromkeys(SERVICES, threaded.endpoint)) as session:
        yield session


async def source_on(session, table):
    streams, dynamodb = await session.client("dynamodbstreams"), await session.client("dynamodb")
    return DynamoDBStreamSource(streams, dynamodb, ApiCaller(), table=table.name, stream_arn=None)


async def read_all(source, shard_id):
    iterator, found = await source.iterator(shard_id, Position("TRIM_HORIZON")), []
    for _ in range(50):
        page = await source.get_records(shard_id, iterator, 100)
        found += [(record.keys["id"], record.new_image.get("n")) for record in page.records]
        iterator = page.next_iterator
        if iterator is None or not page.records:
            return found
    raise AssertionError("the shard does not end")


async def test_from_another_thread_with_four_shards(threaded, session):
    table = await create_source_table(session)
    source = await source_on(session, table)
    first = [shard.shard_id for shard in await source.list_shards()]
    assert len(first) == 4
    names = [f"key-{number}" for number in range(30)]
    for n in range(3):
        await table.put(*({"id": {"S": name}, "n": {"N": str(n)}} for name in names))
        open_shards = [shard["shard_id"] for shard in threaded.call("shards", table.stream_arn) if shard["open"]]
        threaded.call("split" if n % 2 == 0 else "roll", open_shards[n])
    found = [await read_all(source, shard.shard_id) for shard in await source.list_shards()]
    assert sum(map(len, found)) == 90
    assert all(found[:4])
    everything = [entry for part in found for entry in part]
    for name in names:
        assert [n for key, n in everything if key == name] == [0, 1, 2]


async def test_over_http(threaded, session):
    table = await create_source_table(session)
    source = await source_on(session, table)
    parent = (await source.list_shards())[0].shard_id

    def post(method, **arguments):  # blocks this loop, not the proxy's
        url = f"{threaded.endpoint}/_proxy/{method}"
        request = urllib.request.Request(url, json.dumps(arguments).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)["result"]

    children = post("split", shard_id=parent)
    assert [shard.shard_id for shard in await source.child_shards(parent)] == children
    post("fault", operation="DescribeStream", code="ThrottlingException", status=400, times=1)
    assert post("calls_of", operation="DescribeStream") > 0
    with pytest.raises(urllib.error.HTTPError) as caught:
        post("split", shard_id=parent)
    assert caught.value.code == 400
    with pytest.raises(urllib.error.HTTPError) as caught:
        post("no_such_method")
    assert caught.value.code == 404


async def test_a_write_is_applied_though_its_response_is_lost(threaded, session):
    table = await create_source_table(session)
    client = await session.client("dynamodb")
    threaded.call("fault", "PutItem", "lose_response")
    with pytest.raises(Unanswered):
        await ApiCaller().call("PutItem", table.name, client.put_item(TableName=table.name, Item={"id": {"S": "a"}}))
    threaded.call("fault", "PutItem", "lose_request")
    with pytest.raises(Unanswered):
        await ApiCaller().call("PutItem", table.name, client.put_item(TableName=table.name, Item={"id": {"S": "b"}}))
    found = await client.scan(TableName=table.name)
    assert [item["id"]["S"] for item in found["Items"]] == ["a"]


@pytest.mark.parametrize(
    "strange",
    [
        {"kind": "reply", "status": 200, "body": "<html>Please sign in</html>"},
        {"kind": "reply", "status": 200, "body": "{}", "content_type": "application/x-amz-json-1.0"},
        {"kind": "reply", "status": 404, "body": "<html>Not found</html>"},
        {"kind": "truncate"},
    ],
    ids=["portal", "empty", "not found", "cut"],
)
async def test_an_answer_that_is_none(threaded, session, strange):
    """A body of something else, with a status of success: for the table, the stream and the queue."""
    table = await create_source_table(session)
    source = await source_on(session, table)
    shard_id = (await source.list_shards())[0].shard_id
    dynamodb, sqs = await session.client("dynamodb"), await session.client("sqs")
    url = (await sqs.create_queue(QueueName=unique("queue")))["QueueUrl"]
    calls = {
        "PutItem": lambda: dynamodb.put_item(TableName=table.name, Item={"id": {"S": "a"}}),
        "GetItem": lambda: dynamodb.get_item(TableName=table.name, Key={"id": {"S": "a"}}),
        "SendMessage": lambda: sqs.send_message(QueueUrl=url, MessageBody="x"),
        "GetShardIterator": lambda: source.iterator(shard_id, Position("TRIM_HORIZON")),
    }
    for operation, call in calls.items():
        threaded.call("fault", operation, **strange)
        with pytest.raises(StrangeAnswer):
            await ApiCaller().call(operation, "x", call())
        await ApiCaller().call(operation, "x", call())
    threaded.call("fault", "PutItem", kind="reply", status=200, body="<html></html>", applied=True)
    with pytest.raises(StrangeAnswer):
        await dynamodb.put_item(TableName=table.name, Item={"id": {"S": "applied"}})
    assert "Item" in await dynamodb.get_item(TableName=table.name, Key={"id": {"S": "applied"}})


async def test_other_services_pass_through(threaded, session):
    client = await session.client("sqs")
    url = (await client.create_queue(QueueName=unique("queue")))["QueueUrl"]
    await client.send_message(QueueUrl=url, MessageBody="hello \N{PILE OF POO}")
    answer = await client.receive_message(QueueUrl=url)
    assert [message["Body"] for message in answer["Messages"]] == ["hello \N{PILE OF POO}"]
    threaded.call("fault", "SendMessage", code="ServiceUnavailable", status=503)
    with pytest.raises(Unanswered, match="ServiceUnavailable"):
        await ApiCaller().call("SendMessage", url, client.send_message(QueueUrl=url, MessageBody="x"))
    await client.send_message(QueueUrl=url, MessageBody="x")


async def test_delay_and_skip(threaded, session):
    table = await create_source_table(session)
    client = await session.client("dynamodb")

    async def put(timeout):
        call = client.put_item(TableName=table.name, Item={"id": {"S": "a"}})
        await ApiCaller().call("PutItem", table.name, call, timeout)

    threaded.call("fault", "PutItem", "delay", seconds=1.0, skip=1)
    await put(5)
    with pytest.raises(Unanswered, match="Timeout"):
        await put(0.2)
    threaded.call("clear_faults")
    await put(5)


async def test_two_tables_have_shards_of_their_own(threaded, session):
    one, two = await create_source_table(session), await create_source_table(session)
    first, second = await source_on(session, one), await source_on(session, two)
    ids = [{shard.shard_id for shard in await source.list_shards()} for source in (first, second)]
    assert len(ids[0] | ids[1]) == 8
    threaded.call("roll", min(ids[0]))
    assert [len(await source.list_shards()) for source in (first, second)] == [5, 4]
