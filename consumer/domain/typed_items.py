"""Items of records straight into the types of a handler: ``record.decode(Order)``."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .attribute_values import NoNumber
from .item_forms import item_form
from .item_scalars import Mismatch

_MOST_TYPES: Final = 256  # that are kept compiled: handlers have a few, but may make types as they go
_REFUSED: Final = (msgspec.DecodeError, Mismatch, NoNumber, UnicodeDecodeError, RecursionError)


class UnlikeItem(ValueError):
    """An item is not as the type says. Its text names the attribute and the types, and shows nothing of the item."""


@functools.lru_cache(_MOST_TYPES)
def decoder_of(type_: Any) -> Callable[[bytes], Any]:
    """What decodes items, as JSON has them, to values of ``type_``; it raises UnlikeItem. TypeError when there is none
    for such a type. Threads share it."""
    try:
        form = item_form(type_)
    except (TypeError, NameError) as error:  # NameError: of an annotation that is a text
        raise TypeError(f"decode({name_of(type_)}): {error}") from None
    decode = msgspec.json.Decoder(form.wire).decode
    unwrap, look = form.unwrap, form.look
    if unwrap is None:
        raise TypeError(f"decode({name_of(type_)}): an item is a map")

    def decoded(text: bytes) -> Any:
        try:
            return unwrap(decode(text))
        except _REFUSED:
            pass
        try:
            # The standard json module takes what msgspec does not: lone surrogates, NaN.
            item = json.loads(bytes(text).decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            raise UnlikeItem("it is no JSON") from None
        try:
            look(item, "")
            wire = msgspec.convert(item, form.wire)
            msgspec.json.encode(wire)  # refuses lone surrogates, as new_image does
        except Mismatch as error:
            raise UnlikeItem(f"{_where(error.path)}: expected {error.expected}, found {error.found}") from None
        except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
            raise UnlikeItem("it has a value that DynamoDB does not have") from None
        return unwrap(wire)  # what is raised here is raised by a class of the handler

    return decoded


def name_of(type_: Any) -> str:
    """For messages."""
    return getattr(type_, "__name__", None) or repr(type_)


def _where(path: str) -> str:
    return f"attribute {path}" if path else "the item"
