"""Whether a change that was not handled in its time may still be: has a newer one of its item been handled since?"""

from __future__ import annotations

from typing import Any

import msgspec

from .item_comparison import same_item
from .record import Record
from .stream_record import StreamRecord

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def primary_key(record: StreamRecord) -> dict[str, Any] | None:
    """The keys of the item that a change is about, as DynamoDB's JSON; None for what is no change of an item, or tells
    no keys."""
    return _part(record, "Keys") or None


def why_stale(newest: StreamRecord, item: dict[str, Any] | None) -> str:
    """Why the records of an item up to ``newest`` must not be handled now that the item is as given (None: there is
    none); empty when they may. A sentence that goes on after "the record"."""
    image = _part(newest, "NewImage")
    if image:
        try:
            same = item is not None and same_item(image, item)
        except (ValueError, RecursionError) as error:
            return f"cannot be compared with the item: {error}"
        if same:
            return ""
        return "is older than its item, which was deleted since" if item is None else "is older than its item"
    if newest.event_name == "REMOVE":
        return "" if item is None else "removes an item that was written again since"
    return "has no new image to compare with its item (the stream's view type leaves it out)"


def _part(record: StreamRecord, name: str) -> dict[str, Any]:
    if not isinstance(record, Record):
        return {}
    raw = memoryview(getattr(record.dynamodb, name))
    try:
        return _decode(raw) if raw.nbytes and bytes(raw) != b"null" else {}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
