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
        parts = _every_key(keys)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""
    found = []
    for name, raw in sorted(parts.items()):
        value = bytes(raw)
        canonical = _canonical_number(value) if value.startswith(b'{"N"') else value
        found.append(name.encode("utf-8", "surrogatepass") + b"\0" + canonical)
    return b"\0".join(found)


_every_key = msgspec.json.Decoder(dict[str, Raw]).decode


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
        number = _EXACT.create_decimal(text).normalize(_EXACT)
    except (msgspec.DecodeError, DecimalException, KeyError, ValueError, RecursionError):
        return value
    return b"N" + str(number).encode() if number else b"N0"  # zero has no sign in DynamoDB
