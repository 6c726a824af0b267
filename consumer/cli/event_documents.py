"""The records in what people have at hand: events, answers of the CLI, samples, dead letters, and parts of these."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from consumer.domain.record import Record

_MOST_BYTES: Final = 256 << 20  # of a payload that was compressed
_DEEPEST: Final = 8  # documents inside of each other: a letter in a message in an answer of the CLI
_IMAGES: Final = frozenset({"NewImage", "OldImage", "Keys"})
_EXPECTED: Final = (
    "a Lambda event, a record or a list of them, an answer of `aws dynamodbstreams get-records`, a dead letter, or "
    "messages of SQS or SNS that hold one"
)

_records = msgspec.json.Decoder(list[Record])


def read_records(path: Path) -> list[Record]:
    """The records in a file of JSON. ValueError says why there are none; OSError."""
    content = path.read_bytes()
    try:
        return records_in(json.loads(content))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text in UTF-8: {error}") from error


def records_in(document: object) -> list[Record]:
    """The records of a document as ``json.loads`` gives it, in its order. What a record lacks stays empty; a missing
    sequence number is its place. ValueError when there is none in it, or one that cannot be read."""
    found = [_event_record(record, place) for place, record in enumerate(_found_in(document, 0), 1)]
    if not found:
        raise ValueError(f"holds no record; expected {_EXPECTED}")
    try:
        return _records.decode(json.dumps(found).encode("utf-8", "surrogatepass"))
    except msgspec.MsgspecError as error:
        raise ValueError(f"is no DynamoDB event: {error}") from error


def _found_in(document: object, depth: int) -> list[dict[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError(f"holds documents inside of each other, more than {_DEEPEST} deep")
    if isinstance(document, str):
        document = _parsed(document)
    if isinstance(document, list):
        return [record for part in document for record in _found_in(part, depth + 1)]
    if not isinstance(document, dict):
        raise ValueError(f"holds {type(document).__name__} where a record was expected; expected {_EXPECTED}")
    if "dynamodb" in document:
        return [document]
    for fits, inner in _WRAPPED:
        if fits(document):
            return _found_in(inner(document), depth + 1)
    if document.keys() & _IMAGES:
        return [{"dynamodb": document}]
    raise ValueError(f"holds {_named(document)} where a record was expected; expected {_EXPECTED}")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"holds a text that is no JSON: {error}") from error


def _payload(letter: Mapping[str, Any]) -> object:
    """Of a dead letter: an event, in Lambda's format for S3 the text of one, or one that was compressed."""
    payload, encoding = letter["payload"], letter.get("payloadEncoding")
    if encoding is None:
        return payload
    if encoding != "gzip+base64" or not isinstance(payload, str):
        raise ValueError(f"holds a payload in an encoding that this version does not know: {encoding!r}")
    try:
        unpacking = zlib.decompressobj(wbits=31)
        text = unpacking.decompress(base64.b64decode(payload, validate=True), _MOST_BYTES)
    except (binascii.Error, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"holds a payload that is no {encoding}: {error}") from error
    if not unpacking.eof:
        raise ValueError("holds a compressed payload that is cut off, or too large")
    return text.decode()


def _elsewhere(letter: Mapping[str, Any]) -> object:
    if where := letter.get("payloadLocation"):
        raise ValueError(f"is a dead letter whose records are at {where}: fetch that, and give it instead")
    raise ValueError(
        "is a dead letter in Lambda's format, which holds no records: they are in the stream from "
        f"{letter['DDBStreamBatchInfo'].get('startSequenceNumber')} on, or under on_failure.overflow"
    )


_Document = Mapping[str, Any]
# What holds records further inside, the first that fits, and where.
_WRAPPED: Final[tuple[tuple[Callable[[_Document], bool], Callable[[_Document], object]], ...]] = (
    (lambda d: "payload" in d, _payload),
    (lambda d: "DDBStreamBatchInfo" in d, _elsewhere),
    (lambda d: "Records" in d, lambda d: d["Records"]),  # an event, also one of SQS or SNS; get-records
    (lambda d: "Messages" in d, lambda d: d["Messages"]),  # sqs receive-message
    (lambda d: isinstance(d.get("Body"), str), lambda d: d["Body"]),
    (lambda d: isinstance(d.get("body"), str), lambda d: d["body"]),
    (lambda d: "Sns" in d, lambda d: d["Sns"]),
    (lambda d: d.get("Type") == "Notification" and "Message" in d, lambda d: d["Message"]),
)


def _named(document: Mapping[Any, Any]) -> str:
    names = ", ".join(map(str, list(document)[:5]))
    return f"an object with {names}" if names else "an empty object"


def _event_record(record: dict[str, Any], place: int) -> dict[str, Any]:
    """As in an event: the CLI writes times as texts and the names of ``userIdentity`` in capitals."""
    change = record["dynamodb"]
    if not isinstance(change, dict):
        raise ValueError(f"holds a record whose dynamodb is {type(change).__name__}, not an object")
    change = {"SequenceNumber": str(place)} | {name: value for name, value in change.items() if value is not None}
    created = change.get("ApproximateCreationDateTime")
    if isinstance(created, str):
        change["ApproximateCreationDateTime"] = _seconds(created)
    record = {name: value for name, value in record.items() if value is not None} | {"dynamodb": change}
    identity = record.get("userIdentity")
    if isinstance(identity, dict):
        record["userIdentity"] = {name[:1].lower() + name[1:]: value for name, value in identity.items()}
    return record


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"holds the time {text[:64]!r}, which is neither seconds nor ISO 8601") from error
    return moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()
