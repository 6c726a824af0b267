"""Letters as text: tables, names and times."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, Final

from consumer.domain.parking import Parked, ParkedKey
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord
from consumer.redrive.gathering import GatheredLetter
from consumer.redrive.parked import in_order

ID_DIGITS: Final = 12  # of the idempotency key, to name a letter by
SEVERAL: Final = "(several)"
UNKNOWN: Final = "(unknown)"


def letter_id(found: GatheredLetter) -> str:
    """How people name a letter: the beginning of its idempotency key."""
    return found.letter.key[:ID_DIGITS]


def is_named(found: GatheredLetter, name: str) -> bool:
    """Whether ``name`` is its id, or more of its idempotency key, or what its store calls it."""
    return name == found.name or (len(name) >= ID_DIGITS and found.letter.key.startswith(name))


def key_name(found: GatheredLetter) -> str:
    if not found.digests:
        return UNKNOWN
    return next(iter(found.digests)) if len(found.digests) == 1 else SEVERAL


def reason_of(found: GatheredLetter) -> str:
    letter = found.letter
    return f"{letter.condition} {letter.error_type}".strip()


def moment(seconds: float) -> str:
    if not seconds:
        return "-"
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def described(found: GatheredLetter) -> dict[str, Any]:
    """A letter without any value of its records."""
    letter = found.letter
    parked = letter.parked and {"park_id": letter.parked.park_id, "ordinal": letter.parked.ordinal}
    return {
        "id": letter_id(found),
        "name": found.name,
        "idempotency_key": letter.key,
        "keys": sorted(found.digests),
        "condition": letter.condition,
        "error_type": letter.error_type or None,
        "given_up_at": moment(letter.given_up_at),
        "shard_id": letter.shard_id,
        "stream_arn": letter.stream_arn,
        "first_sequence_number": letter.first_number or None,
        "records": letter.count,
        "handler": letter.handler,
        "parked": parked,
        "in_window": letter.in_window,
        "redacted": bool(letter.redacted),
        "redacted_attributes": list(letter.redacted),
        "payload_location": letter.location or None,
        "received": found.received,
        "problem": found.problem or None,
    }


def parked_key(parked: Parked) -> dict[str, Any]:
    """A parked key: since when and why, and its letters shard by shard."""
    key = parked.key or ParkedKey(parked.digest, "")
    return {
        "key": key.digest,
        "state": "damaged" if parked.damaged else key.state,
        "since": moment(key.since),
        "reason": key.reason,
        "problem": parked.damaged[0].problem if parked.damaged else None,
        "letters": sum(row.letters for row in parked.shards),
        "handled": sum(row.done for row in parked.shards),
        "redrive": key.redriver,
        "park_id": key.park_id,
        "shards": [
            {"stream": row.label, "shard_id": row.shard_id, "letters": row.letters, "handled": row.done}
            for row in in_order(parked.shards)
        ],
    }


def keys_in_plain(records: Sequence[StreamRecord]) -> str:
    """The keys of some records, as DynamoDB's JSON; the partition key of what is no change of an item."""
    shown = {
        bytes(record.dynamodb.Keys).decode("utf-8", "replace")
        if isinstance(record, Record)
        else json.dumps(getattr(record, "partition_key", ""))
        for record in records
    }
    return ", ".join(sorted(shown))
