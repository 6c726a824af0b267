"""The records in what people have at hand: events, answers of the CLI, samples, dead letters, and parts of these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from consumer.cli.kinesis_documents import (
    in_event,
    is_answered,
    is_change,
    is_plain,
    moment,
    shown_records,
    whole_change,
)
from consumer.domain.kinesis_records import through_kinesis
from consumer.domain.letter_reading import batch_info_in, payload_in, records_elsewhere
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord

_DEEPEST: Final = 8  # documents inside of each other: a letter in a message in an answer of the CLI
_IMAGES: Final = frozenset({"NewImage", "OldImage", "Keys"})
_EXPECTED: Final = (
    "a Lambda event of DynamoDB or Kinesis, a record or a list of them, an answer of `aws dynamodbstreams get-records` "
    "or `aws kinesis get-records`, a dead letter, or messages of SQS or SNS that hold one"
)

_decode = msgspec.json.Decoder(Record).decode


def read_records(path: Path) -> list[StreamRecord]:
    """The records in a file of JSON. ValueError says why there are none; OSError."""
    content = path.read_bytes()
    try:
        return records_in(json.loads(content))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text in UTF-8: {error}") from error


def records_in(document: object) -> list[StreamRecord]:
    """The records of a document as ``json.loads`` gives it, in its order, as the daemon would show them. What a record
    lacks stays empty; a missing sequence number is its place. ValueError when there is none in it, or one that cannot
    be read."""
    found = _found_in(document, 0)
    if not found:
        raise ValueError(f"holds no record; expected {_EXPECTED}")
    return [record for place, one in enumerate(found, 1) for record in _records(one, place)]


def _records(found: dict[str, Any], place: int) -> Sequence[StreamRecord]:
    if is_plain(found):
        return shown_records(found, place)
    try:
        record = _decode(json.dumps(_event_record(found, place)).encode("utf-8", "surrogatepass"))
    except msgspec.MsgspecError as error:
        raise ValueError(f"is no DynamoDB event: {error}") from error
    return [through_kinesis(record) if is_change(found) else record]


def _found_in(document: object, depth: int) -> list[dict[str, Any]]:
    if depth > _DEEPEST:
        raise ValueError(f"holds documents inside of each other, more than {_DEEPEST} deep")
    if isinstance(document, str):
        document = _parsed(document)
    if isinstance(document, list):
        return [record for part in document for record in _found_in(part, depth + 1)]
    if not isinstance(document, dict):
        raise ValueError(f"holds {type(document).__name__} where a record was expected; expected {_EXPECTED}")
    if "dynamodb" in document or is_plain(document):
        return [document]
    if is_answered(document):
        return [in_event(document)]
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


def _elsewhere(letter: Mapping[str, Any]) -> object:
    raise ValueError(records_elsewhere(letter))


_Document = Mapping[str, Any]
# What holds records further inside, the first that fits, and where.
_WRAPPED: Final[tuple[tuple[Callable[[_Document], bool], Callable[[_Document], object]], ...]] = (
    (lambda d: "payload" in d, payload_in),
    (lambda d: bool(batch_info_in(d)), _elsewhere),
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
        change["ApproximateCreationDateTime"] = moment(created)
    if is_change(record):
        change = whole_change(change)
    record = {name: value for name, value in record.items() if value is not None} | {"dynamodb": change}
    identity = record.get("userIdentity")
    if isinstance(identity, dict):
        record["userIdentity"] = {name[:1].lower() + name[1:]: value for name, value in identity.items()}
    return record
