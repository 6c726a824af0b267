"""What came through Kinesis, out of what people have at hand: `filter test` and `invoke` show it as the daemon does."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumer.cli.event_documents import records_in
from consumer.cli.filter import filter_group
from consumer.cli.invoke import invoke
from consumer.domain.events import batch_event_json
from consumer.domain.kinesis_records import KinesisChange, KinesisRecord
from consumer.domain.kpl import MAGIC
from consumer.domain.record import Record

NUMBER = "49590338271490256608559692538361571095921575989136588898"
STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/changes"
ENVELOPE: dict[str, Any] = {
    "awsRegion": "eu-west-1",
    "eventID": "b015b5f0-c095-4b50-8ad0-4279aa3d88c6",
    "eventName": "INSERT",
    "userIdentity": None,
    "recordFormat": "application/json",
    "tableName": "orders",
    "dynamodb": {
        "ApproximateCreationDateTime": 1720740233012995,
        "Keys": {"id": {"S": "a"}},
        "NewImage": {"id": {"S": "a"}, "status": {"S": "paid"}},
        "SizeBytes": 99,
        "ApproximateCreationDateTimePrecision": "MICROSECOND",
    },
    "eventSource": "aws:dynamodb",
}


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def answered(data: bytes, number: str = NUMBER) -> dict[str, Any]:
    """As `aws kinesis get-records` prints it."""
    return {
        "SequenceNumber": number,
        "ApproximateArrivalTimestamp": "2026-09-17T13:27:39.250000+00:00",
        "Data": base64_text(data),
        "PartitionKey": "0AB18464EFEE6043E48DD4475DABA453",
    }


def delivered(data: bytes, number: str = NUMBER) -> dict[str, Any]:
    """As Lambda's event has it."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "0AB18464EFEE6043E48DD4475DABA453",
            "sequenceNumber": number,
            "data": base64_text(data),
            "approximateArrivalTimestamp": 1789651659.25,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000007:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/r",
        "awsRegion": "eu-west-1",
        "eventSourceARN": STREAM,
    }


CHANGE = json.dumps(ENVELOPE).encode()
DOCUMENTS = {
    "get-records": {"Records": [answered(CHANGE)], "NextShardIterator": "AAAA", "MillisBehindLatest": 0},
    "Lambda's event": {"Records": [delivered(CHANGE)]},
    "a record": delivered(CHANGE),
    "a record of get-records": answered(CHANGE),
    "what DynamoDB has put": ENVELOPE,
    "texts": [json.dumps(ENVELOPE)],
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_change_of_a_table(name: str) -> None:
    (record,) = records_in(DOCUMENTS[name])
    assert isinstance(record, KinesisChange)
    assert (record.table_name, record.event_name, record.event_id) == ("orders", "INSERT", ENVELOPE["eventID"])
    assert (record.created, record.in_micros) == (1720740233.012995, True)
    assert record.new_image == {"id": "a", "status": "paid"}
    assert (record.stream_view_type, record.event_version, record.user_identity) == ("NEW_AND_OLD_IMAGES", "1.1", None)
    assert record.sequence_number == (NUMBER if "dynamodb" not in json.dumps(DOCUMENTS[name]) else "1")


@pytest.mark.parametrize(
    ("written", "seconds", "micros"),
    [
        (1720740233012, 1720740233.012, False),
        (1720740233, 1720740233.0, False),
        (1720740233012995, 1720740233.012995, True),
    ],
)
def test_times_without_a_precision(written: int, seconds: float, *, micros: bool) -> None:
    change = {"ApproximateCreationDateTime": written, "Keys": {"id": {"S": "a"}}}
    (record,) = records_in(ENVELOPE | {"dynamodb": change})
    assert isinstance(record, KinesisChange)
    assert (record.created, record.in_micros) == (seconds, micros)


@pytest.mark.parametrize("document", [answered(b'{"a":1}'), delivered(b'{"a":1}')], ids=["get-records", "event"])
def test_a_record_that_is_no_change(document: dict[str, Any]) -> None:
    (record,) = records_in([document])
    assert isinstance(record, KinesisRecord)
    assert (record.data, record.sequence_number) == (b'{"a":1}', NUMBER)
    assert record.created == 1789651659.25
    assert record.partition_key == "0AB18464EFEE6043E48DD4475DABA453"
    if "kinesis" in document:
        assert (record.event_id, record.event_source_arn) == (document["eventID"], STREAM)


def packed(*datas: bytes) -> bytes:
    """As the KPL does it, for short data."""
    records = b"".join(b"\x1a" + bytes((len(one) + 4,)) + b"\x08\x00\x1a" + bytes((len(one),)) + one for one in datas)
    message = b"\x0a\x01k" + records
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


def test_what_the_kpl_has_packed_is_taken_apart_once() -> None:
    found = records_in({"Records": [delivered(packed(b"one", b"two"))]})
    assert [record.sequence_number for record in found] == [f"{NUMBER}:0", f"{NUMBER}:1"]
    letter = {"KinesisBatchInfo": {}, "payload": json.loads(batch_event_json(found))}
    assert records_in(letter) == found


def test_a_dead_letter_has_what_the_handler_saw() -> None:
    found = records_in({"Records": [delivered(CHANGE), delivered(b"plain", "7")]})
    letter = {"requestContext": {}, "KinesisBatchInfo": {"startSequenceNumber": NUMBER}}
    again = records_in(letter | {"payload": json.loads(batch_event_json(found))})
    assert [type(record) for record in again] == [KinesisChange, KinesisRecord]
    assert batch_event_json(again) == batch_event_json(found)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"kinesis": {"data": "?"}}, "whose data is no base64"),
        ({"kinesis": {"data": 5}}, "whose data is int, not a text"),
        ({"kinesis": {"sequenceNumber": 5, "data": ""}}, "whose sequenceNumber is int, not a text"),
        ({"kinesis": {"sequenceNumber": "x", "data": ""}}, "cannot be read"),
        ({"Data": "", "SequenceNumber": "5", "ApproximateArrivalTimestamp": "noon"}, "holds the time 'noon'"),
        (ENVELOPE | {"dynamodb": 5}, "holds a record whose dynamodb is int"),
    ],
)
def test_what_cannot_be_read_is_told(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        records_in(document)
    assert message in str(caught.value)


KINESIS = {"kind": "kinesis", "stream": "changes", "table": "orders"}
PAID = {"dynamodb": {"NewImage": {"status": {"S": ["paid"]}}}}
OWN = {"eventName": "INSERT", "dynamodb": {"SequenceNumber": "5", **ENVELOPE["dynamodb"]}}
OWN["dynamodb"] = OWN["dynamodb"] | {"ApproximateCreationDateTime": 1720740233.0}


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "event.json").write_text("")

    def run(
        self, command: Any, event: Any, source: dict[str, Any], *options: str, code: str = "", **more: Any
    ) -> Result:
        settings = {"application": "a", "source": source, "handler": {"target": "app.handler"}} | more
        (self.path / "app.py").write_text(code)
        (self.path / "event.json").write_text(json.dumps(event))
        (self.path / "c.yaml").write_text(json.dumps(settings))
        (self.path / "c.yaml").chmod(0o600)
        arguments = ["--config", str(self.path / "c.yaml"), "--event", str(self.path / "event.json"), *options]
        return CliRunner().invoke(command, ["test", *arguments] if command is filter_group else arguments)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_filter_test_says_which_spelling_matched(folder: Folder) -> None:
    result = folder.run(filter_group, DOCUMENTS["get-records"], KINESIS, filters=[{"data": PAID}])
    assert result.exit_code == 0
    assert "passes: filters[0] matches, below data, where the change is as DynamoDB put it into the" in result.stdout
    assert folder.run(filter_group, DOCUMENTS["get-records"], KINESIS, filters=[PAID]).exit_code == 0


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (
            ENVELOPE | {"tableName": "customers"},
            "source.table: it is a change of table customers, and only those of orders",
        ),
        (delivered(b"plain"), "source.table: it is no change of a table, and only those of orders are read"),
    ],
)
def test_filter_test_knows_the_table(folder: Folder, event: dict[str, Any], reason: str) -> None:
    result = folder.run(filter_group, event, KINESIS)
    assert result.exit_code == 1
    assert reason in result.stdout


def test_a_record_of_a_tables_own_stream_is_taken_for_one_through_kinesis(folder: Folder) -> None:
    """It is what people have, and the daemon would show it so."""
    assert folder.run(filter_group, OWN, KINESIS, filters=[{"data": PAID}]).exit_code == 0
    assert folder.run(filter_group, ENVELOPE, {"table": "orders"}, filters=[{"data": PAID}]).exit_code == 1
    assert folder.run(filter_group, ENVELOPE, {"table": "orders"}, filters=[PAID]).exit_code == 0


SHOW = "import json\ndef handler(event, context): print(json.dumps(event['Records'], sort_keys=True))\n"


def test_invoke_shows_the_handler_what_the_daemon_would(folder: Folder) -> None:
    event = {"Records": [answered(CHANGE, "1"), answered(b"plain", "2")]}
    source = {"kind": "kinesis", "stream": "changes"}
    result = folder.run(invoke, event, source, "--output", "json", code=SHOW, aws={"region": "eu-west-1"})
    assert result.exit_code == 0, result.stderr
    change, plain = json.loads(json.loads(result.stdout)["lines"][0]["line"])
    assert change["eventSourceARN"] == plain["eventSourceARN"] == STREAM
    assert change["dynamodb"]["ApproximateCreationDateTime"] == 1720740233.012995
    assert (change["tableName"], change["dynamodb"]["SequenceNumber"]) == ("orders", "1")
    assert plain["kinesis"]["data"] == base64_text(b"plain")
    assert (plain["eventID"], plain["awsRegion"]) == ("shardId-invoke:2", "eu-west-1")


def test_what_comes_next_names_a_place_inside_of_an_aggregate(folder: Folder) -> None:
    code = f"def handler(event, context): return {{'batchItemFailures': [{{'itemIdentifier': '{NUMBER}:1'}}]}}"
    batch = {"order": "shard", "parallelization_factor": 1}
    source = {"kind": "kinesis", "stream_arn": STREAM}
    event = delivered(packed(b"one", b"two", b"three"))
    result = folder.run(invoke, event, source, "--output", "json", code=code, batch=batch)
    shown = json.loads(result.stdout)
    assert (result.exit_code, shown["records"], shown["failed"]) == (1, 3, [f"{NUMBER}:1"])
    assert shown["next"][0] == (
        f"1 record is settled, those before {NUMBER}:1; the others are tried again, as a new batch"
    )
    assert "until it expires from the stream, when its retention is over; then" in shown["next"][1]


def test_a_bad_aggregate_is_told_on_standard_error(folder: Folder) -> None:
    message = b"\x0a\x01k\x1a\x05\x08\x09\x1a\x01x"  # partition key number 9 of one
    bad = MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()
    source = {"kind": "kinesis", "stream": "changes"}
    result = folder.run(filter_group, answered(bad), source, "--output", "json")
    assert json.loads(result.stdout)["matched"] is True
    assert "pages.bad_aggregate" in result.stderr


def test_a_window_begins_at_the_arrival(folder: Folder) -> None:
    code = "import json\ndef handler(event, context):\n    print(json.dumps(event['window']))\n    return {'state': {}}"
    batch = {"tumbling_window": "60s", "parallelization_factor": 1}
    source = {"kind": "kinesis", "stream": "changes"}
    result = folder.run(invoke, delivered(b"plain"), source, "--output", "json", code=code, batch=batch)
    assert result.exit_code == 0, result.stderr
    window = json.loads(json.loads(result.stdout)["lines"][0]["line"])
    assert window["start"] == "2026-09-17T13:27:00Z"


def test_records_keep_their_kind_for_their_source() -> None:
    (own,) = records_in(OWN)
    assert type(own) is Record
