"""Annotations of a handler's types, compiled: the scalar ones. ``item_forms`` has the rest, and says how it works."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import inspect

from .attribute_values import NoNumber, number_from_text, value_from_wire

Unwrap = Callable[[Any], Any]
Look = Callable[[Any, str], None]


class Mismatch(Exception):
    """A value is not as annotated. Says what was expected and what was found in names of types, never with a value."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found


@dataclass(frozen=True, slots=True)
class Form:
    """``wire`` is what msgspec makes of what stands behind the descriptor, ``unwrap`` makes the annotated value of that
    (None: it is that), ``look`` raises Mismatch for JSON that is something else. ``name`` is that of the annotation."""

    descriptor: str
    name: str
    wire: Any
    unwrap: Unwrap | None
    look: Look


def _whole(text: str) -> int:
    if len(text) <= 38 and text.isdecimal():
        return int(text)
    number = number_from_text(text)
    whole = int(number)
    if whole != number:
        raise Mismatch("", "int (N)", "N with a fraction")
    return whole


def _float(text: str) -> float:
    return float(number_from_text(text))


def anything(wire: dict[str, Any]) -> Any:
    try:
        return value_from_wire(wire)
    except ValueError:
        raise Mismatch("", "any attribute value", "none that DynamoDB has") from None


# By the types of annotations: descriptor, name, what msgspec decodes, what makes the value of that.
_SCALARS: Final[Mapping[type, tuple[str, str, Any, Unwrap | None]]] = {
    inspect.StrType: ("S", "str", str, None),
    inspect.IntType: ("N", "int", str, _whole),
    inspect.FloatType: ("N", "float", str, _float),
    inspect.DecimalType: ("N", "Decimal", str, number_from_text),
    inspect.BoolType: ("BOOL", "bool", bool, None),
    inspect.BytesType: ("B", "bytes", bytes, None),
    inspect.NoneType: ("NULL", "None", bool, lambda _: None),
}
_CONSTRAINED: Final = {inspect.StrType: str, inspect.IntType: int, inspect.FloatType: float, inspect.BytesType: bytes}
# What msgspec reads from text.
_TEXTS: Final[Mapping[type, type]] = {
    inspect.DateTimeType: dt.datetime,
    inspect.DateType: dt.date,
    inspect.TimeType: dt.time,
    inspect.TimeDeltaType: dt.timedelta,
    inspect.UUIDType: uuid.UUID,
}


def _scalar(descriptor: str, name: str, wire: Any, unwrap: Unwrap | None = None) -> Form:
    def look(value: Any, path: str) -> None:
        try:
            decoded = msgspec.convert(value, wire)
            if unwrap is not None:
                unwrap(decoded)
        except Mismatch as error:
            raise Mismatch(path, error.expected, error.found) from None
        except (msgspec.ValidationError, NoNumber):
            raise Mismatch(path, f"{name} ({descriptor})", f"{descriptor} that is none") from None

    return Form(descriptor, name, wire, unwrap, look)


def with_check(form: Form, annotation: Any) -> Form:
    """The form with what msgspec checks or makes of the value: constraints, times, UUIDs."""
    unwrap = form.unwrap

    def checked(value: Any) -> Any:
        try:
            return msgspec.convert(value if unwrap is None else unwrap(value), annotation)
        except msgspec.ValidationError:
            found = f"{form.descriptor} that the annotation does not allow"
            raise Mismatch("", f"{form.name} ({form.descriptor})", found) from None

    def look(value: Any, path: str) -> None:
        form.look(value, path)
        try:
            checked(msgspec.convert(value, form.wire))
        except Mismatch as error:
            raise Mismatch(path, error.expected, error.found) from None

    return Form(form.descriptor, form.name, form.wire, checked, look)


def annotated_scalar(type_: inspect.Type) -> Form:
    """TypeError when no attribute can become one."""
    known = _SCALARS.get(type(type_))
    constraints = constraints_of(type_)
    if known is not None:
        form = _scalar(*known)
        base = _CONSTRAINED.get(type(type_))
        return with_check(form, constrained(base, constraints)) if constraints else form
    cls = _TEXTS.get(type(type_))
    if cls is None:
        other = getattr(type_, "cls", type_)
        if isinstance(other, type) and hasattr(other, "__struct_fields__"):
            raise TypeError(
                f"{other.__name__} is of another msgspec than the daemon's, such as a copy in handler.path: take that "
                "away, or give a dataclass"
            )
        raise TypeError(f"no attribute of an item can become {other!r}")
    return with_check(_scalar("S", cls.__name__, str), constrained(cls, constraints))


def constrained(base: Any, constraints: dict[str, Any]) -> Any:
    return Annotated[base, msgspec.Meta(**constraints)] if constraints else base


def enumerated(name: str, values: Iterable[Any], choose: Unwrap) -> list[Form]:
    """Forms of an enumeration or a Literal, by the types of its values. ``choose`` raises ValueError for others."""
    types = {type(value) for value in values}
    if not types <= {str, int, type(None)}:
        raise TypeError(f"{name} has values that are neither text nor whole numbers")

    def text(value: str) -> Any:
        try:
            return choose(value)
        except ValueError:
            raise Mismatch("", f"{name} (S)", "S that is none of its values") from None

    def number(value: str) -> Any:
        try:
            return choose(_whole(value))
        except ValueError:
            raise Mismatch("", f"{name} (N)", "N that is none of its values") from None

    forms = [_scalar("S", name, str, text)] if str in types else []
    if int in types:
        forms.append(_scalar("N", name, str, number))
    return [*forms, NULL] if type(None) in types else forms


def constraints_of(type_: inspect.Type) -> dict[str, Any]:
    known = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
    found = {name: getattr(type_, name, None) for name in known}
    return {name: value for name, value in found.items() if value is not None}


NULL: Final = _scalar(*_SCALARS[inspect.NoneType])
TEXT: Final = _scalar(*_SCALARS[inspect.StrType])
DECIMAL: Final = _scalar(*_SCALARS[inspect.DecimalType])
BINARY: Final = _scalar(*_SCALARS[inspect.BytesType])
