"""The ordering key of a record: its partition key, as bytes that are equal exactly when the items' keys are."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Context, DecimalException, Inexact, InvalidOperation, Overflow
from typing import Any, Protocol

import msgspec
from msgspec import Raw

_PLAIN = re.compile(rb'\{"N":"(-?[1-9]|-?[1-9][0-9]{0,36}[1-9])"\}').fullmatch

# DynamoDB's numbers have up to 38 digits; whatever would have to be rounded stays as it was written.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow])


def partition_key_reader(attribute: str) -> Callable[[Any], bytes]:
    """A function from a ``Record`` to its ordering key, decoding nothing but the one key attribute (0.4 us).

    Records without a usable key (a service bug, an emulator) share the key ``b""``: they are handled in stream order
    among themselves and end as poison if the handler needs their keys.
    """
    decode = _keys_decoder(attribute)

    def read(record: Any) -> bytes:
        try:
            value = bytes(decode(record.dynamodb.Keys).partition)
        except (msgspec.MsgspecError, KeyError, ValueError, RecursionError):
            return b""
        return _canonical_number(value) if value.startswith(b'{"N"') else value

    return read


def item_key(keys: Raw) -> bytes:
    """The whole primary key of an item, as bytes that are equal exactly when the keys are, whatever their order.

    ``b""`` when there is no usable key: what carries none is handled in stream order.
    """
    try:
        parts = _item_keys(keys)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""
    found = []
    for name, value in parts.items():
        kind, text = next(iter(value.items()), ("", ""))
        if len(value) != 1 or kind not in _KEY_TYPES:
            return b""
        found.append((name, kind, canonical_number(text) if kind == "N" else text))
    return _encode(sorted(found)) if found else b""


_KEY_TYPES = ("S", "N", "B")
_encode = msgspec.json.Encoder().encode
_every_key = msgspec.json.Decoder(dict[str, Raw]).decode
_item_keys = msgspec.json.Decoder(dict[str, dict[str, str]]).decode


class _Partition(Protocol):
    @property
    def partition(self) -> Raw: ...


class _Found:
    __slots__ = ("partition",)

    def __init__(self, partition: Raw) -> None:
        self.partition = partition


def _keys_decoder(attribute: str) -> Callable[[Raw], _Partition]:
    """A decoder of ``Keys`` whose result has the value as ``partition``. Used for every record: no call around it."""
    try:
        keys_type = msgspec.defstruct("Keys", [("partition", Raw, msgspec.field(name=attribute))], gc=False)
    except ValueError:  # msgspec takes no quotes, backslashes and control characters in names; DynamoDB does
        return lambda keys: _Found(_every_key(keys)[attribute])
    decoder: msgspec.json.Decoder[_Partition] = msgspec.json.Decoder(keys_type)
    return decoder.decode


def _canonical_number(value: bytes) -> bytes:
    """``1``, ``1.0`` and ``1E0`` are the same item, so they must be the same key."""
    plain = _PLAIN(value)
    if plain is not None:  # nearly all are: 0.3 us instead of 2
        return b"N" + plain[1]
    try:
        text = msgspec.json.decode(value, type=dict[str, str])["N"]
    except (msgspec.DecodeError, KeyError, ValueError, RecursionError):
        return value
    number = _number(text)
    return value if number is None else b"N" + number.encode()


def canonical_number(text: str) -> str:
    """One spelling for all that mean the same number; what is none stays as it is."""
    number = _number(text)
    return text if number is None else number


def _number(text: str) -> str | None:
    """One spelling of a number; None for what is none."""
    try:
        number = _EXACT.create_decimal(text).normalize(_EXACT)
    except (DecimalException, ValueError):
        return None
    return str(number) if number else "0"  # zero has no sign in DynamoDB
