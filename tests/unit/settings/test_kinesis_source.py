"""`source.kind: kinesis` in a file: what is taken, what is refused with what advice, and what is only warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw

from consumer.domain.kinesis_records import KinesisChange
from consumer.domain.record import Change
from consumer.settings.load import load_with_warnings
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE
from tests.unit.settings.test_bad_files import STREAM as TABLES_OWN

STREAM = "arn:aws:kinesis:eu-west-1:1:stream/s"
CONSUMER = f"{STREAM}/consumer/c:1"
TABLE = "arn:aws:dynamodb:eu-west-1:2:table/orders"
WHOLE_ARN = "must be the ARN of a Kinesis stream, arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
NO_FAN_OUT = "enhanced fan-out is not offered, because the SDK for Python has no HTTP/2"
OWN = BASE.replace("{table: orders}", "{kind: kinesis, stream: s}")


def with_source(source: str) -> str:
    return BASE.replace("{table: orders}", f"{{{source}}}")


BAD = [
    ("stream: s", "source.stream: is for kind kinesis, found kind dynamodb (set kind: kinesis, or use table: NAME)"),
    ("table: orders, stream: s", "source.stream: is for kind kinesis, found kind dynamodb (set kind: kinesis, or"),
    ("kind: kinesis", "source: must have stream or stream_arn for kind kinesis (stream: NAME of the stream)"),
    ("kind: kinesis, table: orders", "for kind kinesis (table only picks the changes of one table out of it)"),
    (
        f"kind: kinesis, stream: s, stream_arn: {STREAM}",
        "source.stream_arn: cannot be given together with source.stream (keep one of them)",
    ),
    ("kind: kineses, stream: s", "source.kind: must be dynamodb or kinesis, found 'kineses' (did you mean kinesis?)"),
    ("kind: kinesis, streams: s, stream: s", "source.streams: unknown key (did you mean stream?)"),
    ("kind: kinesis, stream: s, StreamName: s", "source.StreamName: unknown key (did you mean source.stream?)"),
    (
        "kind: kinesis, stream: s, starting_position_timestamp: 5",
        "unknown key (did you mean source.starting_position?)",
    ),
    (f"kind: kinesis, stream: {STREAM}", f"found '{STREAM}' (an ARN belongs in source.stream_arn)"),
    (
        "kind: kinesis, stream: a b",
        "source.stream: must be the name of a Kinesis stream (1 to 128 of a-z A-Z 0-9 _ . -)",
    ),
    ("kind: kinesis, stream_arn: s", f"source.stream_arn: {WHOLE_ARN} (or give the stream's name as source.stream)"),
    (f"kind: kinesis, stream_arn: '{CONSUMER}'", f"(this is the ARN of a consumer; {NO_FAN_OUT}; give {STREAM})"),
    (f"kind: kinesis, stream_arn: {TABLES_OWN}", "(this is a table's own stream; set source.kind: dynamodb)"),
    (
        "kind: kinesis, stream_arn: 'arn:aws:sqs:eu-west-1:1:q'",
        f"source.stream_arn: {WHOLE_ARN} (this ARN belongs to sqs)",
    ),
    (f"kind: kinesis, stream_arn: {STREAM}/", f"source.stream_arn: {WHOLE_ARN}"),
    ("kind: kinesis, stream: s, poll: {max_records: 10001}", "must be a whole number from 1 to 10000, found 10001"),
    ("kind: kinesis, stream: s, duplicates: skip", "source.duplicates: must be drop or keep, found 'skip'"),
    (
        f"kind: kinesis, stream_arn: {STREAM}, table: '{TABLE}'",
        "source.table: is in eu-west-1 2, but source.stream_arn is in eu-west-1 1 (DynamoDB puts changes only into",
    ),
]


@pytest.mark.parametrize(("source", "expected"), BAD, ids=[source for source, _ in BAD])
def test_what_is_refused(problems: Problems, source: str, expected: str) -> None:
    (line,) = problems(with_source(source))
    assert line.startswith("c.yaml:2: ")
    assert expected in line


def test_the_region_of_the_stream_and_of_the_configuration(problems: Problems, load: Load) -> None:
    text = with_source(f"kind: kinesis, stream_arn: {STREAM}") + "aws: {region: us-east-1"
    assert problems(text + "}\n") == [
        "c.yaml:2: source.stream_arn: is in region eu-west-1, but aws.region is us-east-1 (make them agree)"
    ]
    assert load(text + ", endpoints: {kinesis: 'http://127.0.0.1:4566'}}\n"), "an emulator takes any region"


GOOD = [
    "stream: a.b-c_D, poll: {max_records: 1e4}",
    "stream_arn: 'arn:aws-cn:kinesis:cn-north-1:123456789012:stream/s', duplicates: keep",
    f"stream: s, table: '{TABLE}'",
    f"stream_arn: {STREAM}, table: '{TABLE.replace(':2:', ':1:')}', starting_position: 2026-01-31T12:00:00Z",
]


@pytest.mark.parametrize("source", GOOD)
def test_what_is_taken(load: Load, source: str) -> None:
    assert load(with_source(f"kind: kinesis, {source}")).source.kind == "kinesis"


def test_windows_and_the_order_of_the_shard(load: Load) -> None:
    text = (
        OWN + "batch: {tumbling_window: 60s, order: shard, parallelization_factor: 1}\nretry: {max_record_age: 365d}\n"
    )
    assert load(text).retry.max_record_age == 365 * 86400


@pytest.mark.parametrize("table", ["orders", TABLE])
def test_the_table_is_a_filter(load: Load, table: str) -> None:
    def change(name: str) -> KinesisChange:
        return KinesisChange(Change("4" * 56, Keys=Raw(b'{"id":{"S":"a"}}')), event_name="INSERT", table_name=name)

    filters = load(with_source(f"kind: kinesis, stream: s, table: '{table}'")).compiled_filters()
    assert (bool(filters), filters.matches(change("orders")), filters.matches(change("other"))) == (True, True, False)
    assert not load(OWN).compiled_filters()
    assert not load(BASE).compiled_filters(), "a table's own stream holds nothing else"


LETTERS = "on_failure: {destination: 's3://dead'}\n"
WARNED = [
    (
        with_source("table: orders, duplicates: keep") + LETTERS + "retry: {max_retry_attempts: 5}\n",
        "c.yaml:2: source.duplicates: has no effect with kind dynamodb: a table's own stream repeats no change",
    ),
    (
        OWN + LETTERS,
        "so a dead letter comes when the stream's retention is over, 24 hours to 365 days (set a number of retries, or",
    ),
    (BASE + LETTERS, "so a dead letter comes after 24 hours (set a number of retries, or retry.max_record_age)"),
    (
        BASE + LETTERS + "retry: {max_record_age: 2d}\n",
        "c.yaml:5: retry.max_record_age: has no effect, found 48h: a DynamoDB stream keeps records for 24 hours, so a",
    ),
    (
        BASE
        + LETTERS
        + "retry: {max_retry_attempts: 5}\nfilters:\n- eventName: [INSERT]\n- data: {eventName: [INSERT]}\n",
        "c.yaml:8: filters[1].data: never matches: records of kind dynamodb have no data (write what is below data one",
    ),
]
SILENT = [
    OWN + LETTERS + "retry: {max_record_age: 2d}\n",
    OWN + LETTERS + "retry: {max_retry_attempts: 5}\nfilters: [{data: {dynamodb: {NewImage: {a: {S: [b]}}}}}]\n",
    BASE + LETTERS + "retry: {max_record_age: 24h}\n",
]


def warnings(text: str, folder: Path) -> list[str]:
    file = folder / "c.yaml"
    file.write_text(text)
    return [str(problem).replace(f"{folder}/", "") for problem in load_with_warnings(file, {})[1]]


@pytest.mark.parametrize(("text", "expected"), WARNED)
def test_what_works_and_may_surprise(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = warnings(text, tmp_path)
    assert expected in line


@pytest.mark.parametrize("text", SILENT)
def test_what_is_no_surprise(tmp_path: Path, text: str) -> None:
    assert warnings(text, tmp_path) == []
