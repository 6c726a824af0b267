"""DynamoDB attribute values to Python values, as boto3's ``TypeDeserializer`` gives them, several times faster.

N becomes ``Decimal`` in DynamoDB's context (38 digits, inexact numbers refused), B becomes boto3's ``Binary``,
sets become ``set``. A value that DynamoDB could not have written (two descriptors, an unknown one, a number of
39 digits, NaN, a type that does not fit) raises ``ValueError`` for that record only, so that one odd record never
fails its page.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from decimal import Clamped, Context, Decimal, DecimalException, Inexact, Overflow, Rounded, Underflow
from typing import Any

import msgspec

# The limits of boto3.dynamodb.types.DYNAMODB_CONTEXT.
_CONTEXT = Context(Emin=-128, Emax=126, prec=38, traps=[Clamped, Overflow, Inexact, Rounded, Underflow])
_decode_json = msgspec.json.Decoder().decode


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _number(text: Any) -> Decimal:
    number = _CONTEXT.create_decimal(_text(text))
    if not number.is_finite():  # "NaN", "Infinity", and what does not read as a number: the context traps no NaN
        raise TypeError("not a finite number")
    return number


def _binary(text: Any) -> Any:
    # boto3's own wrapper, imported by who meets a B attribute: handlers written for boto3 use ``.value``.
    from boto3.dynamodb.types import Binary

    return Binary(base64.b64decode(_text(text), validate=True))


def _null(_: Any) -> None:
    return None


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{type(value).__name__} instead of a boolean")
    return value


def _map(value: Any) -> dict[str, Any]:
    return {name: from_wire(inner) for name, inner in value.items()}


def _list(value: Any) -> list[Any]:
    return [from_wire(inner) for inner in _sequence(value)]


def _sequence(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value


def _text_set(value: Any) -> set[str]:
    return {_text(text) for text in _sequence(value)}


def _number_set(value: Any) -> set[Decimal]:
    return {_number(text) for text in _sequence(value)}


def _binary_set(value: Any) -> set[Any]:
    return {_binary(text) for text in _sequence(value)}


_BY_DESCRIPTOR: dict[str, Callable[[Any], Any]] = {
    "S": _text,
    "N": _number,
    "B": _binary,
    "BOOL": _bool,
    "NULL": _null,
    "M": _map,
    "L": _list,
    "SS": _text_set,
    "NS": _number_set,
    "BS": _binary_set,
}


def from_wire(value: Any) -> Any:
    """One attribute value (``{"S": "a"}``) to its Python value. ValueError when it is not one."""
    try:
        ((descriptor, inner),) = value.items()
        return _BY_DESCRIPTOR[descriptor](inner)
    except (KeyError, AttributeError, TypeError, DecimalException, binascii.Error) as error:
        raise ValueError(f"not a DynamoDB attribute value: {str(value)[:80]} ({error!r})") from error


def item_from_json(raw: bytes | memoryview) -> dict[str, Any]:
    """A whole image or key map from its JSON text to Python values. ValueError when it does not decode."""
    try:
        item = _decode_json(raw)
        return {name: from_wire(value) for name, value in item.items()}
    except (msgspec.DecodeError, AttributeError, RecursionError) as error:
        raise ValueError(f"an image does not decode: {error}") from error
