"""DynamoDB attribute values to Python values, as boto3's ``TypeDeserializer`` gives them, several times faster.

N becomes ``Decimal``, exactly equal and with at most 38 digits, so that it can be written back; B becomes boto3's
``Binary``, sets become ``set``. The one difference is what boto3 fails for: a number that the service writes out, such
as 1 and 125 zeros, is a number, and so is one of 38 digits that begins at 1E-130 (boto3's serializer refuses those
whose last digit is below 1E-165). A value that DynamoDB could not have written (two descriptors, an unknown one, 39
significant digits, NaN, a type that does not fit) raises ``ValueError`` for that record only, so that one odd record
never fails its page.
"""

from __future__ import annotations

import functools
from binascii import a2b_base64
from collections.abc import Callable
from decimal import Context, Decimal, DecimalException, Inexact, Overflow
from typing import Any, Final

import msgspec

# Up to 38 digits from 1E-130 to 9.99...E+125, as the service has them (Developer Guide, "Supported data types").
# boto3.dynamodb.types.DYNAMODB_CONTEXT begins at -128, and traps Rounded and Clamped, too. Those come also when no more
# than zeros are cut off, and the service writes numbers of up to 38 significant digits out with all their zeros.
_CONTEXT = Context(Emin=-130, Emax=126, prec=38, traps=[Overflow, Inexact])
create_decimal = _CONTEXT.create_decimal
_decode_json = msgspec.json.Decoder().decode


class NoNumber(ValueError):
    """DynamoDB has no such number: it is not finite, or has too many digits."""

    def __init__(self) -> None:
        super().__init__("not a number of DynamoDB")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError(f"{type(value).__name__} instead of text")
    return value


def _number(text: Any) -> Decimal:
    if type(text) is not str:
        raise TypeError(f"{type(text).__name__} instead of a number's text")
    number = create_decimal(text)
    if not number.is_finite():  # "NaN", "Infinity", and what does not read as a number: the context traps no NaN
        raise NoNumber
    return number


@functools.cache
def plain_binary() -> Any:
    """boto3's own wrapper of bytes; imported with the first B attribute. Handlers written for boto3 use its ``.value``.
    None if that of the installed boto3 keeps more than its value, so that it must be made by its ``__init__``."""
    from boto3.dynamodb.types import Binary

    binary = Binary.__new__(Binary)
    binary.value = b"a"
    return Binary if vars(binary) == vars(Binary(b"a")) else None


@functools.cache
def _maker_of_binary() -> Callable[[Any], Any]:
    """Makes it of base64 text."""
    from boto3.dynamodb.types import Binary

    def make(text: Any) -> Any:
        # Its __init__ looks whether this is bytes, which costs more than all the rest.
        binary = new(Binary)
        binary.value = a2b_base64(_text(text), strict_mode=True)
        return binary

    new = Binary.__new__
    if plain_binary() is not None:
        return make
    return lambda text: Binary(a2b_base64(_text(text), strict_mode=True))


def _binary(text: Any) -> Any:
    return _maker_of_binary()(text)


def _null(_: Any) -> None:
    return None


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{type(value).__name__} instead of a boolean")
    return value


def _map(item: Any) -> dict[str, Any]:
    # The loop of this module. The two descriptors that most attributes have are dealt with in it, without a call, and
    # what msgspec has decoded becomes the item, instead of being copied into another dict.
    for name, wire in item.items():
        descriptor, value = wire.popitem()
        if wire:
            raise ValueError("more than one descriptor")
        if descriptor == "S":
            if type(value) is not str:
                raise TypeError(f"{type(value).__name__} instead of text")
        elif descriptor == "N":
            if type(value) is not str:
                raise TypeError(f"{type(value).__name__} instead of a number's text")
            value = create_decimal(value)
            if not value.is_finite():
                raise NoNumber
        else:
            value = _BY_DESCRIPTOR[descriptor](value)
        item[name] = value
    return item  # type: ignore[no-any-return]  # only a dict has items() and comes out of JSON


def _list(values: Any) -> list[Any]:
    items = []
    for wire in _sequence(values):
        descriptor, value = wire.popitem()
        if wire:
            raise ValueError("more than one descriptor")
        items.append(_BY_DESCRIPTOR[descriptor](value))
    return items


def _value(wire: Any) -> Any:
    descriptor, value = wire.popitem()
    if wire:
        raise ValueError("more than one descriptor")
    return _BY_DESCRIPTOR[descriptor](value)


def _sequence(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value


def _text_set(value: Any) -> set[str]:
    return {_text(text) for text in _sequence(value)}


def _number_set(values: Any) -> set[Decimal]:
    return {_number(text) for text in _sequence(values)}


def _binary_set(values: Any) -> set[Any]:
    return set(map(_maker_of_binary(), _sequence(values)))


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
DESCRIPTORS: Final = frozenset(_BY_DESCRIPTOR)


# What a value that is none raises on its way; binascii.Error and failed unpacking are ValueErrors.
_ODD = (ValueError, KeyError, AttributeError, TypeError, DecimalException)


def item_from_json(raw: bytes | memoryview) -> dict[str, Any]:
    """A whole image or key map from its JSON text to Python values. ValueError when it does not decode."""
    try:
        return _map(_decode_json(raw))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"an image does not decode: {error}") from error
    except UnicodeDecodeError as error:  # which would show the text
        raise ValueError(f"an image does not decode: text that is no UTF-8 ({error.reason})") from None
    except _ODD as error:
        raise ValueError(f"an image has an odd attribute value and does not decode: {error!r}") from error


def value_from_wire(wire: dict[str, Any]) -> Any:
    """One attribute value from what JSON made of it, which is used up. ValueError when it is none."""
    try:
        return _value(wire)
    except _ODD as error:
        raise ValueError("an odd attribute value") from error


def number_from_text(text: str) -> Decimal:
    """A number from its text, as it stands behind N. NoNumber."""
    try:
        number = create_decimal(text)
    except DecimalException:
        raise NoNumber from None
    if not number.is_finite():
        raise NoNumber
    return number
