"""What the handler gets for records of redacted letters: their item as it is now.

What the images held cannot be had any more, and the item is at its newest version. So one event stands for consecutive
redacted records of an item: it has the place, the id and the sequence number of the last of them, and the item as it is
now. What the item was in between cannot be told; changes that are newer than the event still come in their places, so
whoever applies them in order ends with the newest state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec import Raw

from .keys import item_key
from .record import Record
from .redaction import Redaction
from .stream_record import StreamRecord, encode

Paths = tuple[str, ...]
Marked = tuple[StreamRecord, Paths]
"""A record, and what it lacks: the paths of its letter; empty for a whole one."""

_WITH_NEW_IMAGES: Final = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES", "")
_NOTHING: Final = Raw(b"")


def in_runs(records: Sequence[Marked]) -> Iterator[tuple[int, int]]:
    """Begin and end of what is handled together: consecutive redacted records of one item, and consecutive whole
    ones."""
    places = enumerate(records)
    for _, group in groupby(places, lambda place: _of_item(*place[1])):
        indexes = [index for index, _ in group]
        yield indexes[0], indexes[-1] + 1


def _of_item(record: StreamRecord, paths: Paths) -> bytes | None:
    if not paths:
        return None
    return item_key(record.dynamodb.Keys) if isinstance(record, Record) else record.number.encode()


def why_not_told(newest: StreamRecord) -> str:
    """Why no item can stand for a record; empty when one can. A sentence that goes on after "the record"."""
    if not isinstance(newest, Record) or not item_key(newest.dynamodb.Keys):
        return "says no item that could be read"
    if newest.stream_view_type not in _WITH_NEW_IMAGES:
        return (
            f"is of a stream with the view type {newest.stream_view_type}: its handler gets no new image, and nothing "
            "brings back what an item was before"
        )
    return ""


def as_it_is_now(run: Sequence[Marked], item: Mapping[str, Any] | None) -> Record:
    """One event for redacted records of one item, oldest first. ``item`` is None when it is gone, or when the last of
    the records removes it.

    INSERT when the first of them is one, REMOVE when the item is gone, else MODIFY. The old image is that of the first
    record, if nothing was taken out of it. ValueError when ``why_not_told`` says something of the last.
    """
    (first, paths), (newest, _) = run[0], run[-1]
    if not isinstance(newest, Record) or not isinstance(first, Record):
        raise ValueError(f"the record {why_not_told(newest)}")
    removes = newest.event_name == "REMOVE"
    new = _NOTHING if item is None or removes else Raw(encode(item))
    old = first.dynamodb.OldImage
    if not Redaction(paths).leaves(old, first.dynamodb.Keys):
        old = _NOTHING
    name = "REMOVE" if item is None or removes else "INSERT" if first.event_name == "INSERT" else "MODIFY"
    change = msgspec.structs.replace(newest.dynamodb, NewImage=new, OldImage=old)
    change.SizeBytes = sum(map(_size, (change.Keys, new, old)))
    return msgspec.structs.replace(
        newest,
        dynamodb=change,
        event_name=name,
        user_identity_wire=newest.user_identity_wire if removes else None,
        cached=None,
    )


def _size(image: Raw) -> int:
    """Bytes of an item, as DynamoDB counts them."""
    text = bytes(image)
    try:
        return _map_size(msgspec.json.decode(text)) if text not in (b"", b"null") else 0
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError):
        return len(text)  # no item, as emulators may give them


def _map_size(item: Mapping[str, Any]) -> int:
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(str(content).encode())
        case "N":
            return (len(str(content).strip("-").replace(".", "")) + 1) // 2 + 1
        case "B":
            return len(content) * 3 // 4 - int(content.count("="))
        case "SS" | "NS" | "BS":
            return sum(_value_size({kind[0]: one}) for one in content)
        case "L":
            return 3 + sum(1 + _value_size(one) for one in content)
        case "M":
            return 3 + len(content) + _map_size(content)
        case _:
            return 1  # BOOL, NULL
