"""From the body of a GetRecords answer of Kinesis to a page of records; ``pages.py`` has the reasons for this way.

The data of a record is decoded from base64 once and is its own from then on: images are slices of it, and nothing pins
the body. What the KPL has packed is taken apart. A page that is cut, is no JSON or lacks ``Records`` is an error to
retry, and so is one with a record that cannot be placed in its shard or whose data does not arrive whole.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import structlog
from msgspec import Raw

from consumer.aws.errors import StrangeAnswer
from consumer.aws.kinesis_changes import change_in
from consumer.aws.odd_records import REFUSED, text_or, undecodable
from consumer.domain.kinesis_numbers import PLACES
from consumer.domain.kinesis_records import NO_SUB, Data, KinesisRecord, identifier
from consumer.domain.kpl import MAGIC, BadAggregate, SubRecord, sub_records
from consumer.domain.shards import ShardInfo
from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Page

log = structlog.get_logger()

# What a record takes besides its data, once it waits: structs, texts, its key, its place in the books. Measured as
# growth of RSS: 510 to 670 bytes for a change, 400 to 740 for another record. The body is given back.
BYTES_PER_RECORD: Final = 800
# Bytes by which a record's Lambda event may be larger than the record is on the wire: two numbers, shard, ARN, names.
ADDED_BY_EVENT: Final = 600
_LAST_SECOND: Final = 253402300799.0  # 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True)
class KinesisShard:
    """Where a page was read. ``hash_range``: the first and last hash key of the shard; None when it is not known."""

    stream_arn: str
    shard_id: str
    hash_range: tuple[int, int] | None = None

    @property
    def region(self) -> str:
        """Empty when the ARN is none."""
        parts = self.stream_arn.split(":", 4)
        return parts[3] if len(parts) == 5 else ""


@dataclass(frozen=True, slots=True)
class KinesisPage:
    """One answer. ``page.next_iterator`` is None when the answer has none; that the shard is at its end is only certain
    when it also names ``children``, each with its parents (empty when the answer does not say). None: it names none.

    ``foreign``: sub-records that by their hash key belong into another shard; they are in the page all the same.
    """

    page: Page
    children: list[ShardInfo] | None
    foreign: int = 0


class _WireRecord(msgspec.Struct, gc=False):
    SequenceNumber: str
    Data: bytes
    PartitionKey: str = ""
    ApproximateArrivalTimestamp: Annotated[float, msgspec.Meta(ge=0.0, le=_LAST_SECOND)] = 0.0


class _WireChild(msgspec.Struct, gc=False):
    ShardId: str
    ParentShards: list[str] | None = None


class _Answer(msgspec.Struct, gc=False):
    Records: list[_WireRecord]
    NextShardIterator: str | None = None
    MillisBehindLatest: float | None = None
    ChildShards: list[_WireChild] | None = None


class _Split(msgspec.Struct, gc=False):
    Records: list[Raw]
    NextShardIterator: Any = None
    MillisBehindLatest: Any = None
    ChildShards: Any = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_split = msgspec.json.Decoder(_Split).decode
_decode_record = msgspec.json.Decoder(_WireRecord).decode


def decode_page(body: bytes | bytearray, shard: KinesisShard) -> KinesisPage:
    """The records of one successful answer.

    Raises:
        StrangeAnswer: the body is not JSON, lacks ``Records``, or a record has no SequenceNumber or no readable Data.
    """
    try:
        answer = _decode_answer(body)
    except REFUSED as error:
        answer = _decode_one_by_one(body, error)
    return _page(answer, len(body), shard)


def convert_page(answer: Mapping[str, Any], shard: KinesisShard) -> KinesisPage:
    """The page of what botocore's own parser returned, which takes many times longer. A body that botocore took for an
    empty success lacks ``Records``.

    Raises:
        StrangeAnswer: as ``decode_page`` does.
    """
    records = answer.get("Records")
    if not isinstance(records, list):
        raise undecodable("has no Records")
    rebuilt = _rebuilt_answer(answer, [_rebuilt(index, wire) for index, wire in enumerate(records)])
    length = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-length", "")
    size = int(length) if length.isdecimal() else sum(len(wire.Data) * 4 // 3 + 300 for wire in rebuilt.Records)
    return _page(rebuilt, size, shard)


def _page(answer: _Answer, size: int, shard: KinesisShard) -> KinesisPage:
    if answer.NextShardIterator == "":  # None would mean the end of the shard: never guess that
        raise undecodable("has an empty NextShardIterator")
    for index, wire in enumerate(answer.Records):
        if not (wire.SequenceNumber.isascii() and wire.SequenceNumber.isdecimal()):
            raise _without(index, wire.SequenceNumber, "SequenceNumber")
    shown = _Shown(shard)
    shown.add(answer.Records)
    page = Page(
        shown.records,
        answer.NextShardIterator,
        size,
        behind=None if answer.MillisBehindLatest is None else max(0.0, answer.MillisBehindLatest / 1000),
        held_bytes=sum(len(wire.Data) for wire in answer.Records) + BYTES_PER_RECORD * len(shown.records) + shown.keys,
        event_bytes=size + ADDED_BY_EVENT * len(answer.Records) + shown.packed_event_bytes,
        count=len(answer.Records),
        arrived=answer.Records[0].ApproximateArrivalTimestamp if answer.Records else 0.0,
    )
    return KinesisPage(page, _children(answer.ChildShards), shown.foreign)


def _children(wire: Sequence[_WireChild] | None) -> list[ShardInfo] | None:
    return None if wire is None else [ShardInfo(child.ShardId, tuple(child.ParentShards or ())) for child in wire]


class _Shown:
    """What handlers see of the records of one shard.

    ``foreign``: as in ``KinesisPage``. An aggregate has each of its keys once, and its records have them each:
    ``keys`` are their bytes, ``packed_event_bytes`` no less than the JSON of these records.
    """

    def __init__(self, shard: KinesisShard) -> None:
        self.records: list[StreamRecord] = []
        self.foreign = 0
        self.keys = 0
        self.packed_event_bytes = 0
        self._arn = shard.stream_arn
        self._shard_id = shard.shard_id
        self._region = shard.region
        self._hash_range = shard.hash_range

    def add(self, wires: Sequence[_WireRecord]) -> None:
        """The records of a page, in their order, those inside of an aggregate in its place."""
        arn, found = self._arn, self.records
        for wire in wires:
            if wire.Data[:4] == MAGIC and (packed := self._packed(wire)):
                self._add_packed(wire, packed)
                continue
            change = change_in(wire.Data, wire.SequenceNumber, arn)
            found.append(self._plain(wire, wire.Data, wire.PartitionKey, NO_SUB) if change is None else change)

    def _add_packed(self, wire: _WireRecord, packed: Sequence[SubRecord]) -> None:
        for place, sub in enumerate(packed):
            change = change_in(sub.data, identifier(wire.SequenceNumber, place), self._arn)
            record = self._plain(wire, sub.data, sub.partition_key, place) if change is None else change
            self.records.append(record)
            self.keys += len(sub.partition_key)
            self.packed_event_bytes += record.event_size
        if self._hash_range is not None:
            self.foreign += sum(sub.is_foreign(self._hash_range) for sub in packed)

    def _packed(self, wire: _WireRecord) -> list[SubRecord] | None:
        """None, or nothing, when the record has to be shown as it is: also an aggregate that is empty, because nobody
        would see that record otherwise, or one that cannot be resolved."""
        try:
            packed = sub_records(wire.Data)
        except BadAggregate as error:
            log.warning(
                "pages.bad_aggregate",
                shard_id=self._shard_id,
                sequence_number=wire.SequenceNumber,
                reason=str(error),
                effect="the record goes to the handler as it is",
            )
            return None
        return packed if packed is None or len(packed) <= 10**PLACES else None

    def _plain(self, wire: _WireRecord, data: bytes, partition_key: str, place: int) -> KinesisRecord:
        number = identifier(wire.SequenceNumber, place)
        return KinesisRecord(
            Data(number, data, partition_key, wire.ApproximateArrivalTimestamp),
            f"{self._shard_id}:{number}",
            aws_region=self._region,
            event_source_arn=self._arn,
        )


# --- what the fast decoder refuses -----------------------------------------------------------------------------------


def _decode_one_by_one(body: bytes | bytearray, cause: BaseException) -> _Answer:
    """Record by record, so that only the odd one suffers; see ``pages.py``."""
    records: Sequence[Any]
    envelope: Mapping[str, Any]
    try:
        split = _decode_split(body)
        records, envelope = split.Records, msgspec.structs.asdict(split)
    except REFUSED:
        try:
            whole = json.loads(body.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise undecodable(f"of {len(body)} bytes is not JSON: {cause}") from error
        if not isinstance(whole, dict) or not isinstance(whole.get("Records"), list):
            raise undecodable("has no Records") from cause
        records, envelope = whole["Records"], whole
    decoded = [_decode_alone(index, record) for index, record in enumerate(records)]
    log.warning("pages.odd_page", reason=str(cause), records=len(decoded))
    return _rebuilt_answer(envelope, decoded)


def _decode_alone(index: int, record: object) -> _WireRecord:
    if not isinstance(record, Raw):
        return _rebuilt(index, record)
    try:
        return _decode_record(record)
    except REFUSED:
        pass
    try:
        return _rebuilt(index, json.loads(bytes(record).decode("utf-8", "surrogateescape")))
    except (ValueError, RecursionError) as error:
        raise _without(index, "unknown", "SequenceNumber") from error


def _rebuilt(index: int, wire: object) -> _WireRecord:
    """A record from Python objects. What Kinesis itself adds has a default when it is odd; what the producer has put
    has none: it would be another record."""
    fields = wire if isinstance(wire, dict) else {}
    number = fields.get("SequenceNumber")
    if isinstance(number, int) and not isinstance(number, bool):
        number = str(number)
    if not isinstance(number, str):
        raise _without(index, number, "SequenceNumber")
    data = fields.get("Data")
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _without(index, number, "Data") from error
    if not isinstance(data, bytes):  # botocore has decoded it
        raise _without(index, number, "Data")
    arrival = fields.get("ApproximateArrivalTimestamp")
    return _WireRecord(number, data, text_or(fields.get("PartitionKey"), ""), _seconds(arrival))


def _rebuilt_answer(envelope: Mapping[str, Any], records: list[_WireRecord]) -> _Answer:
    """The end of a shard hangs on these fields, so nothing is made of odd ones."""
    rest: dict[str, Any] = {}
    for name, field in _ENVELOPE.items():
        try:
            rest[name] = msgspec.convert(envelope.get(name), field, strict=True)
        except msgspec.ValidationError as error:
            raise undecodable(f"has a {name} that is none: {error}") from error
    return _Answer(records, **rest)


_ENVELOPE: Final[Mapping[str, Any]] = {
    "NextShardIterator": str | None,
    "MillisBehindLatest": float | None,
    "ChildShards": list[_WireChild] | None,
}


def _seconds(value: object) -> float:
    if isinstance(value, dt.datetime):
        return value.timestamp()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LAST_SECOND:
        return float(value)
    return 0.0


def _without(index: int, number: object, field: str) -> StrangeAnswer:
    return undecodable(f"has a record without usable {field}: number {index}, SequenceNumber {number!r}")
