"""Records of a Kinesis stream, as its pages have them."""

from __future__ import annotations

from typing import Any

from consumer.aws.kinesis_pages import KinesisShard, decode_page
from consumer.domain.kinesis_records import Data, KinesisChange, KinesisRecord, identifier
from consumer.domain.stream_record import StreamRecord
from tests.support.kinesis_answers import ARN, FIRST, SHARD_ID, body_of, change, data_of, wire


def records_of(*datas: bytes) -> list[StreamRecord]:
    """What a page with these data shows."""
    body = body_of(*[wire(data, FIRST + place) for place, data in enumerate(datas)])
    return list(decode_page(body, KinesisShard(ARN, SHARD_ID)).page.records)


def change_record(number: int = FIRST, inner: dict[str, Any] | None = None, **outer: Any) -> KinesisChange:
    """A change that DynamoDB has put there (``kinesis_answers.change``)."""
    body = body_of(wire(data_of(change(inner, **outer)), number))
    [record] = decode_page(body, KinesisShard(ARN, SHARD_ID)).page.records
    assert isinstance(record, KinesisChange)
    return record


def data_record(data: bytes = b"x", number: int = FIRST, *, key: str = "k", place: int = -1) -> KinesisRecord:
    """Something else."""
    shown = identifier(str(number), place)
    return KinesisRecord(
        Data(shown, data, key, 1700000000.987),
        f"{SHARD_ID}:{shown}",
        aws_region="eu-west-1",
        event_source_arn=ARN,
    )
