"""GetRecords of one Kinesis stream, the direct way or the SDK's own (``page_reader.py``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from consumer.aws.kinesis_pages import KinesisPage, KinesisShard, convert_page, decode_page
from consumer.aws.page_reader import PageReader

_SHARD: Final = KinesisShard("arn:aws:kinesis:eu-west-1:123456789012:stream/self-test", "shardId-000000000000")


class KinesisPageReader(PageReader[KinesisShard, KinesisPage]):
    """Of one stream, because its ARN decides which host is asked; without it the host of the region is. Origins are
    shards of the stream."""

    def __init__(self, client: Any, stream_arn: str | None = None) -> None:
        super().__init__(client, **({} if stream_arn is None else {"StreamARN": stream_arn}))

    def _decoded(self, body: bytes, origin: KinesisShard) -> KinesisPage:
        return decode_page(body, origin)

    def _converted(self, answer: Mapping[str, Any], origin: KinesisShard) -> KinesisPage:
        return convert_page(answer, origin)

    def _sample(self) -> bytes:
        return SAMPLE

    def _agree(self, answer: Mapping[str, Any], sample: bytes) -> bool:
        slow, fast = _comparable(convert_page(answer, _SHARD)), _comparable(decode_page(sample, _SHARD))
        return len(fast[0]) == _IN_SAMPLE and slow == fast


def _comparable(found: KinesisPage) -> tuple[Any, ...]:
    """Without its size, which is in a header that the sample does not have."""
    page = found.page
    records = [(type(record), record.as_event(), record.number) for record in page.records]
    return records, page.next_iterator, page.behind, found.children


_CHANGE: Final = (
    b'{"awsRegion":"eu-west-1","eventID":"0a4c9f63-8e1c-4c77-9f0b-3b1f1b9b2d5e","eventName":"MODIFY",'
    b'"userIdentity":null,"recordFormat":"application/json","tableName":"orders","dynamodb":'
    b'{"ApproximateCreationDateTime":1700000000123456,"Keys":{"pk":{"S":"a"}},"NewImage":{"pk":{"S":"a\\u0000'
    b'\xf0\x9f\x98\x80"},"n":{"N":"1"}},"OldImage":{"pk":{"S":"a"}},"SizeBytes":26,'
    b'"ApproximateCreationDateTimePrecision":"MICROSECOND"},"eventSource":"aws:dynamodb"}'
)
_IN_SAMPLE: Final = 3


def _record(number: int, data: bytes, **more: object) -> dict[str, object]:
    return {
        "SequenceNumber": str(number),
        "ApproximateArrivalTimestamp": 1700000000.123,
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": "0AB18464EFEE6043E48DD4475DABA453",
        **more,
    }


_FIRST: Final = 49590338271490256608559692538361571095921575989136588898
_PARENTS: Final = ["shardId-000000000000", "shardId-000000000001"]
SAMPLE: Final = json.dumps(
    {
        "Records": [
            _record(_FIRST, _CHANGE),
            _record(_FIRST + 1, bytes(range(256)), EncryptionType="KMS"),
            _record(_FIRST + 2, b"", PartitionKey="\N{GRINNING FACE}"),
        ],
        "NextShardIterator": "next",
        "MillisBehindLatest": 1500,
        "ChildShards": [
            {
                "ShardId": "shardId-000000000002",
                "ParentShards": _PARENTS,
                "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "340282366920938463463374607431768211455"},
            }
        ],
    }
).encode()
