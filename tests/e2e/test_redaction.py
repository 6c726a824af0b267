"""Attributes that must not leave, through the daemon: a handler tells them all, and nothing that leaves has them."""

from __future__ import annotations

import base64
import gzip
import json
import random
import urllib.request
import uuid
from typing import Any

import pytest

from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import Fleet, Worker, wait_until

SERVICES = ("dynamodb", "dynamodb_streams", "sqs", "s3")
SSN, NAME, CARD, PHOTO = (
    "078-05-1120-Zebra",
    'Zo\u00eb "Quokka" O\'Hara',
    "4111222233334444",
    b"\xf0\x9f\x00wombat'\xff",
)
WRITTEN = (
    SSN, SSN.upper(), "Quokka", "Hara", CARD, f"{int(CARD):,}",
    base64.b64encode(PHOTO).decode(), PHOTO.hex(), "wombat",
)  # fmt: skip
"""How the values could be written where they must not be."""
REDACT = ["ssn", "person.name", "card", "*.photo", "photo"]
ITEM = {
    "pk": {"S": "the-key"},
    "ssn": {"S": SSN},
    "person": {"M": {"name": {"S": NAME}, "town": {"S": "Hobart"}}},
    "card": {"N": CARD},
    "photo": {"B": PHOTO},
}
NOISE = random.Random(7).randbytes(30_000).hex()  # what no compression makes small
PLACES = {
    "queue": (None, False),
    "queue and overflow": (4096, True),
    "queue alone": (4096, False),
}


def found_in(text: str | bytes) -> list[str]:
    """The values that are in a text."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [value for value in WRITTEN if value.lower() in text.lower()]


def shown(worker: Worker) -> str:
    """All that the daemon says: its log, and every page."""
    pages = [worker.log.read_text()]
    for path in ("", "status.json", "metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/{path}", timeout=5) as answer:
            pages.append(answer.read().decode())
    return "\n".join(pages)


def rows(aws: Aws, table: str) -> list[dict[str, Any]]:
    """All rows of the lease table."""
    return [item for page in aws.dynamodb.get_paginator("scan").paginate(TableName=table) for item in page["Items"]]


def payload_of(letter: dict[str, Any]) -> bytes:
    if letter.get("payloadEncoding") == "gzip+base64":
        return gzip.decompress(base64.b64decode(letter["payload"]))
    return json.dumps(letter.get("payload")).encode()


@pytest.mark.parametrize("place", PLACES)
def test_the_values_are_nowhere_but_in_the_handler(place: str, aws: Aws, fleet: Fleet) -> None:
    """Letters in a queue, what a queue cannot hold in S3 or in the lease table, the log, the pages, all rows."""
    limit, has_overflow = PLACES[place]
    s3, bucket = client("s3", aws.endpoint), f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    url, queue = aws.queue()
    if limit is not None:
        aws.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": str(limit)})
    on_failure = {"destination": queue, "redact": REDACT}
    if has_overflow:
        on_failure["overflow"] = f"s3://{bucket}/kept"
    noise = {} if limit is None else {"noise": {"S": NOISE}}
    aws.dynamodb.put_item(TableName=fleet.table, Item=ITEM | noise)
    worker = fleet.start(
        "w1",
        aws={"endpoints": dict.fromkeys(SERVICES, aws.endpoint)},
        handler={"target": "telltale_handler:lambda_handler"},
        batch={"batch_size": 1},
        on_failure=on_failure,
        http={"show_errors": True},
    )
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == 1, 30, "the dead letter")
    (message,) = aws.sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    letter = json.loads(message["Body"])
    objects = [
        s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
        for one in s3.list_objects_v2(Bucket=bucket).get("Contents", [])
    ]
    kept = rows(aws, f"leases-{fleet.table}")
    parts = b"".join(bytes(row["payload"]["B"]) for row in kept if "payload" in row)
    event = {"queue": payload_of(letter), "queue and overflow": b"".join(objects), "queue alone": parts}[place]
    (record,) = json.loads(event)["Records"]
    image = record["dynamodb"]["NewImage"]
    marked = {"S": "[redacted]"}
    assert {name: image.pop(name) for name in ("ssn", "card", "photo")} == dict.fromkeys(
        ("ssn", "card", "photo"), marked
    )
    assert image.pop("person") == {"M": {"name": marked, "town": {"S": "Hobart"}}}
    assert image == {"pk": {"S": "the-key"}} | noise, "nothing else was touched"
    assert (letter["redacted"], letter["redactedAttributes"]) == (True, ["ssn", "person.name", "card", "photo"])
    assert "[redacted]" in letter["error"]["errorMessage"]
    assert "[redacted]" in json.dumps(worker.status()["errors"])

    assert found_in(json.dumps(message)) == []
    assert found_in(event) == []
    assert found_in(repr(kept)) == []
    said = shown(worker)
    assert found_in(said) == []
    assert {event["event"] for event in worker.events()} >= {"batch.failed", "handler.output", "dead_letter.sent"}
    lines = [event["line"] for event in worker.events() if event["event"] == "handler.output"]
    assert "done with the-key" in lines, "what says nothing of them is shown as it is"
    assert any("handling {'pk'" in line for line in lines)


def test_objects_in_s3_and_a_record_that_is_discarded(aws: Aws, fleet: Fleet) -> None:
    """S3 as the destination; and the log of a daemon that has none."""
    s3, bucket = client("s3", aws.endpoint), f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    aws.dynamodb.put_item(TableName=fleet.table, Item=ITEM)
    options: dict[str, Any] = {
        "aws": {"endpoints": dict.fromkeys(SERVICES, aws.endpoint)},
        "handler": {"target": "telltale_handler:lambda_handler"},
        "batch": {"batch_size": 1},
    }
    worker = fleet.start("w1", **options, on_failure={"destination": f"s3://{bucket}/dead", "redact": REDACT})
    other = fleet.start("w2", **options, application="other", on_failure={"redact": REDACT})
    for one in (worker, other):
        wait_until(lambda one=one: one.metric("stream_consumer_dead_letters_total") == 1, 30, "given up")
    (name,) = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    stored = s3.get_object(Bucket=bucket, Key=name)
    document = stored["Body"].read()
    assert json.loads(document)["redactedAttributes"] == ["ssn", "person.name", "card", "photo"]
    assert found_in(document) == found_in(json.dumps(stored["Metadata"])) == found_in(name) == []
    assert found_in(shown(worker) + shown(other)) == []
    assert found_in(repr(rows(aws, f"leases-{fleet.table}"))) == []
    assert [event for event in other.events() if event["event"] == "records.discarded"]


def test_a_name_of_the_key_is_refused_at_the_start(aws: Aws, fleet: Fleet) -> None:
    """A key says which item a record is about: 78, and what to do."""
    worker = fleet.start("w1", on_failure={"redact": ["ssn", "pk"]})
    assert worker.wait() == 78
    said = worker.log.read_text()
    assert f"on_failure.redact names pk, of the key of {fleet.table}" in said
    assert "take it off the list" in said
