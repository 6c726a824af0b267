"""What DynamoDB puts into a Kinesis stream, and answers of GetRecords of Kinesis, as they are on the wire."""

from __future__ import annotations

import base64
import json
from typing import Any

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
SHARD_ID = "shardId-000000000007"
FIRST = 49590338271490256608559692538361571095921575989136588898  # a number as the service gives them: 56 digits
MICROS = 1_700_000_000_123_456
PARTITION_KEY = "0AB18464EFEE6043E48DD4475DABA453"


def change(inner: dict[str, Any] | None = None, **outer: Any) -> dict[str, Any]:
    """The JSON of one change, with microseconds; what is given replaces what it usually has, None leaves it out."""
    change = {
        "ApproximateCreationDateTime": MICROS,
        "Keys": {"id": {"S": "a"}},
        "NewImage": {"id": {"S": "a"}, "n": {"N": "2"}},
        "OldImage": {"id": {"S": "a"}, "n": {"N": "1"}},
        "SizeBytes": 26,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
        **(inner or {}),
    }
    return {
        "awsRegion": "eu-west-1",
        "eventID": "0a4c9f63-8e1c-4c77-9f0b-3b1f1b9b2d5e",
        "eventName": "MODIFY",
        "userIdentity": None,
        "recordFormat": "application/json",
        "tableName": "orders",
        "dynamodb": {name: value for name, value in change.items() if value is not None},
        "eventSource": "aws:dynamodb",
        **outer,
    }


def data_of(change: dict[str, Any]) -> bytes:
    return json.dumps(change, ensure_ascii=False, separators=(",", ":")).encode()


def wire(data: bytes, number: int | str = FIRST, **fields: Any) -> dict[str, Any]:
    """One record of an answer."""
    return {
        "SequenceNumber": str(number),
        "ApproximateArrivalTimestamp": 1700000000.987,
        "Data": base64.b64encode(data).decode(),
        "PartitionKey": PARTITION_KEY,
        **fields,
    }


def body_of(*records: Any, following: Any = "next", **fields: Any) -> bytes:
    """The body of an answer."""
    answer = {"Records": list(records), "MillisBehindLatest": 0, **fields}
    if following is not None:
        answer["NextShardIterator"] = following
    return json.dumps(answer).encode()
