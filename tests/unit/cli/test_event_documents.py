"""Records out of what people have at hand, told apart by their shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from consumer.cli.event_documents import records_in
from consumer.domain.dead_letter import compressed_document
from consumer.domain.record import Record

CHANGE = {"SequenceNumber": "7", "Keys": {"id": {"S": "a"}}, "NewImage": {"id": {"S": "a"}, "n": {"N": "1.50"}}}
RECORD = {"eventID": "e7", "eventName": "INSERT", "dynamodb": {"ApproximateCreationDateTime": 1789651659.0, **CHANGE}}
EVENT = {"Records": [RECORD, RECORD]}
LETTER = {"requestContext": {}, "DDBStreamBatchInfo": {"startSequenceNumber": "7"}, "error": None}
FULL = LETTER | {"payload": EVENT}
PACKED = json.loads(compressed_document(json.dumps(FULL, separators=(",", ":")).encode()))
FROM_CLI = {
    "Records": [
        {
            "eventID": "e7",
            "eventName": "INSERT",
            "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
            "dynamodb": {"ApproximateCreationDateTime": "2026-09-17T13:27:39+00:00", "OldImage": None, **CHANGE},
        }
    ],
    "NextShardIterator": "arn:aws:...",
}


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (EVENT, 2),
        (RECORD, 1),
        ([RECORD, RECORD, RECORD], 3),
        ([EVENT, RECORD], 3),
        (FROM_CLI, 1),
        (FULL, 2),
        ([FULL, FULL], 4),
        (LETTER | {"version": "1.0", "payload": json.dumps(EVENT)}, 2),
        (PACKED, 2),
        (json.dumps(FULL), 2),
        ({"Messages": [{"MessageId": "m", "Body": json.dumps(FULL)}]}, 2),
        ({"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps(FULL)}]}, 2),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {"Type": "Notification", "Message": json.dumps(FULL)}}]}, 2),
        ({"Messages": [{"Body": json.dumps({"Type": "Notification", "Message": json.dumps(PACKED)})}]}, 2),
    ],
)
def test_the_records_are_found(document: object, count: int) -> None:
    records = records_in(document)
    assert len(records) == count
    for record in records:
        assert isinstance(record, Record)
        assert (record.event_id, record.sequence_number, record.event_name) == ("e7", "7", "INSERT")
        assert record.approximate_creation_time.isoformat() == "2026-09-17T13:27:39+00:00"
        assert record.new_image is not None
        assert str(record.new_image["n"]) == "1.50"


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"dynamodb": {"NewImage": {"id": {"S": "a"}}}}, ("", "1")),
        ({"NewImage": {"id": {"S": "a"}}}, ("", "1")),
        ({"eventName": "MODIFY", "dynamodb": {"Keys": {"id": {"S": "a"}}}}, ("MODIFY", "1")),
        ({"eventName": "REMOVE", "eventID": None, "dynamodb": {}}, ("REMOVE", "1")),
    ],
)
def test_a_record_may_be_a_part_of_one(document: object, names: tuple[str, str]) -> None:
    (record,) = records_in(document)
    assert isinstance(record, Record)
    assert (record.event_name, record.sequence_number) == names


def test_who_deleted_it_is_known_from_the_cli_too() -> None:
    (record,) = records_in(FROM_CLI)
    assert isinstance(record, Record)
    assert record.user_identity == {"principalId": "dynamodb.amazonaws.com", "type": "Service"}


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        ("2026-09-17T13:27:39Z", 1789651659.0),
        ("2026-09-17T15:27:39+02:00", 1789651659.0),
        ("2026-09-17T13:27:39", 1789651659.0),
        ("1789651659", 1789651659.0),
        (1789651659, 1789651659.0),
    ],
)
def test_times_as_texts(moment: object, seconds: float) -> None:
    (record,) = records_in({"dynamodb": {"ApproximateCreationDateTime": moment}})
    assert record.created == seconds


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "holds no record; expected a Lambda event"),
        ({}, "holds an empty object where a record was expected"),
        (5, "holds int where a record was expected"),
        ({"Items": [], "Count": 0}, "holds an object with Items, Count where"),
        ({"Records": [{"kinesis": ""}]}, "holds an object with kinesis where"),
        ({"dynamodb": 5}, "holds a record whose dynamodb is int"),
        ({"dynamodb": {"ApproximateCreationDateTime": "noon"}}, "holds the time 'noon'"),
        ({"dynamodb": {"SequenceNumber": 7}}, "is no DynamoDB event: Expected `str`, got `int`"),
        (LETTER, "in Lambda's format, which holds no records: they are in the stream from 7 on"),
        (
            {"KinesisBatchInfo": {"startSequenceNumber": "4"}},
            "in Lambda's format, which holds no records: they are in the",
        ),
        (LETTER | {"payloadLocation": "s3://b/k"}, "whose records are at s3://b/k: fetch that"),
        (PACKED | {"payloadEncoding": "zip"}, "in an encoding that this version does not know: 'zip'"),
        (PACKED | {"payload": PACKED["payload"][:40]}, "compressed payload that is cut off"),
        (PACKED | {"payload": "?"}, "holds a payload that is no gzip"),
        ({"Messages": [{"Body": "hello"}]}, "holds a text that is no JSON"),
        ([[[[[[[[[[[RECORD]]]]]]]]]]], "more than 8 deep"),
    ],
)
def test_what_holds_none_is_told(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        records_in(document)
    assert message in str(caught.value)
