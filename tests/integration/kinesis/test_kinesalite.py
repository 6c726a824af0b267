"""What the tests of the Kinesis source rely on in kinesalite: it refuses positions as AWS does."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.kinesis_streams import KinesisStream, StreamMaker

SEQUENCE_KINDS = ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")


async def refusal(stream: KinesisStream, shard: str, kind: str, number: str) -> dict[str, Any]:
    with pytest.raises(ClientError) as refused:
        await stream.iterator(shard, kind, StartingSequenceNumber=number)
    return dict(refused.value.response["Error"])


@pytest.mark.parametrize("kind", SEQUENCE_KINDS)
async def test_numbers_that_the_shard_cannot_have_are_invalid_arguments(
    kinesalite_streams: StreamMaker, kind: str
) -> None:
    stream = await kinesalite_streams(2)
    first, second = [shard["ShardId"] for shard in await stream.shards()]
    [mine] = await stream.put(b"1", into=first)
    [foreign] = await stream.put(b"2", into=second)
    older = str(int(mine.sequence_number) - 1)
    for number, reason in ((foreign.sequence_number, "It encodes"), ("12345", "It encodes"), (older, "is invalid")):
        error = await refusal(stream, first, kind, number)
        assert error["Code"] == "InvalidArgumentException", number
        assert "StartingSequenceNumber" in error["Message"]
        assert reason in error["Message"]


async def test_a_number_that_no_record_has_any_more_is_accepted(kinesalite_streams: StreamMaker) -> None:
    """As on AWS: nothing says that a record was trimmed."""
    stream = await kinesalite_streams()
    [shard] = await stream.shards()
    await stream.put(b"1")
    start = {"StartingSequenceNumber": shard["SequenceNumberRange"]["StartingSequenceNumber"]}
    for kind in SEQUENCE_KINDS:
        page = await stream.page(shard["ShardId"], kind, **start)
        assert [record["Data"] for record in page["Records"]] == [b"1"]


async def test_the_last_number_of_a_closed_shard_is_a_position(kinesalite_streams: StreamMaker) -> None:
    stream = await kinesalite_streams()
    [shard] = await stream.shards()
    await stream.put(b"1")
    await stream.split(shard["ShardId"])
    closed = await stream.shard(shard["ShardId"])
    end = {"StartingSequenceNumber": closed["SequenceNumberRange"]["EndingSequenceNumber"]}
    reading = await stream.read(shard["ShardId"], "AFTER_SEQUENCE_NUMBER", **end)
    assert reading == ([], []), "the end, without children: kinesalite names none"


async def test_what_is_no_iterator_is_an_invalid_argument(kinesalite_streams: StreamMaker) -> None:
    stream = await kinesalite_streams()
    with pytest.raises(ClientError) as refused:
        await stream.reader.get_records(ShardIterator="rubbish")
    assert refused.value.response["Error"]["Code"] == "InvalidArgumentException"
