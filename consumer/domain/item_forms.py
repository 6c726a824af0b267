"""Annotations of a handler's types, compiled: what is decoded of an item for them, and how it becomes their values.

An attribute value is an object with one member, whose name (the descriptor) says which of DynamoDB's types it has. A
``Form`` is one of them that an annotation takes: ``int | None`` has the forms N and NULL. From the forms of a class a
structure is made that msgspec decodes in one pass: it has the annotated attributes alone, and each of them nothing but
the descriptors that are allowed, so that what a handler did not ask for is skipped, not built.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import signature
from operator import attrgetter
from types import GenericAlias
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType, inspect
from msgspec.structs import astuple

from .attribute_values import DESCRIPTORS
from .item_scalars import (
    BINARY,
    DECIMAL,
    TEXT,
    Form,
    Look,
    Mismatch,
    Unwrap,
    annotated_scalar,
    anything,
    constrained,
    constraints_of,
    enumerated,
    with_check,
)


@dataclass(frozen=True, slots=True)
class _Value:
    """An attribute value, which may have several forms. ``wire`` is what msgspec decodes. Where ``inside``, its field
    ``value`` is what ``unwrap`` takes, else all of it; without ``unwrap`` that is the value already."""

    wire: Any
    inside: bool
    unwrap: Unwrap | None
    look: Look
    expected: str

    def unwrap_each(self) -> Callable[[Iterable[Any]], list[Any]]:
        """The loop over many of them, with no call for each that can be spared."""
        unwrap = self.unwrap
        if unwrap is None:
            return lambda wires: [wire.value for wire in wires]
        if self.inside:
            return lambda wires: [unwrap(wire.value) for wire in wires]
        return lambda wires: [unwrap(wire) for wire in wires]


def item_form(type_: Any) -> Form:
    """How a whole item becomes a value of ``type_``. TypeError when it cannot."""
    forms = _Compiler().forms(inspect.type_info(type_))
    if forms is None or [form.descriptor for form in forms] != ["M"]:
        raise TypeError("an item is a map: give a msgspec.Struct, a dataclass, a TypedDict or dict[str, ...]")
    return forms[0]


# -- containers


def _inside(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _list(name: str, item: _Value, make: Callable[[list[Any]], Any]) -> Form:
    wire, unwrap_each = GenericAlias(list, (item.wire,)), item.unwrap_each()

    def look(values: Any, path: str) -> None:
        if type(values) is not list:
            raise Mismatch(path, f"{name} (L)", "L that is none")
        for place, value in enumerate(values):
            item.look(value, f"{path}[{place}]")

    return Form("L", name, wire, unwrap_each if make is list else lambda wires: make(unwrap_each(wires)), look)


def _dict(item: _Value) -> Form:
    unwrap_each = item.unwrap_each()

    def look(attributes: Any, path: str) -> None:
        if type(attributes) is not dict:
            raise Mismatch(path, "dict (M)", "M that is none")
        for value in attributes.values():  # their names may be data
            item.look(value, f"{path}[...]")

    def unwrap(attributes: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(attributes, unwrap_each(attributes.values()), strict=True))

    return Form("M", "dict", GenericAlias(dict, (str, item.wire)), unwrap, look)


def _sets(items: list[Form] | None, make: Any) -> list[Form]:
    return [_set(item, make) for item in items or (TEXT, DECIMAL, BINARY)]


def _set(item: Form, make: Any) -> Form:
    if item.descriptor not in ("S", "N", "B"):
        raise TypeError(f"a set of DynamoDB has texts, numbers or binary, and not {item.name}")
    descriptor, wire, unwrap = f"{item.descriptor}S", item.wire, item.unwrap
    name = f"{make.__name__} of {item.name}"

    def look(values: Any, path: str) -> None:
        if type(values) is not list:
            raise Mismatch(path, f"{name} ({descriptor})", f"{descriptor} that is none")
        for value in values:
            item.look(value, f"{path}[...]")

    if unwrap is None:
        return Form(descriptor, name, GenericAlias(make, (wire,)), None, look)
    return Form(
        descriptor, name, GenericAlias(list, (wire,)), lambda values: make([unwrap(value) for value in values]), look
    )


# -- values


def _value(forms: list[Form]) -> _Value:
    """One object with one member."""
    by_descriptor = {form.descriptor: form for form in forms}
    if len(by_descriptor) < len(forms):
        names = " | ".join(form.name for form in forms)
        raise TypeError(f"{names}: an attribute would not tell which of them it is")
    expected = " or ".join(f"{form.name} ({form.descriptor})" for form in forms)

    def look(value: Any, path: str) -> None:
        if type(value) is not dict or len(value) != 1:
            raise Mismatch(path, expected, "no attribute value")
        ((descriptor, inner),) = value.items()
        form = by_descriptor.get(descriptor)
        if form is None:
            found = descriptor if descriptor in DESCRIPTORS else "no type of DynamoDB"
            raise Mismatch(path, expected, found)
        form.look(inner, path)

    if len(forms) == 1:
        member = ("value", forms[0].wire, msgspec.field(name=forms[0].descriptor))
        wire = msgspec.defstruct("Value", [member], frozen=True, forbid_unknown_fields=True, gc=False)
        return _Value(wire, True, forms[0].unwrap, look, expected)
    return _Value(*_several_forms(forms), look, expected)


def _several_forms(forms: list[Form]) -> tuple[Any, bool, Unwrap]:
    members: list[tuple[str, Any, Any]] = [
        (f"value{place}", form.wire | UnsetType, msgspec.field(name=form.descriptor, default=UNSET))
        for place, form in enumerate(forms)
    ]
    wire = msgspec.defstruct("Value", members, forbid_unknown_fields=True, gc=False)
    unwraps = [form.unwrap for form in forms]

    def unwrapped(wire: Any) -> Any:
        found = [(unwrap, value) for unwrap, value in zip(unwraps, astuple(wire), strict=True) if value is not UNSET]
        if len(found) != 1:
            raise Mismatch("", "one type", "several or none")
        ((unwrap, value),) = found
        return value if unwrap is None else unwrap(value)

    return wire, False, unwrapped


def _look_at_anything(value: Any, path: str) -> None:
    try:
        anything(copy.deepcopy(value))  # it is used up
    except Mismatch as error:
        raise Mismatch(path, error.expected, error.found) from None


_ANYTHING: Final = _Value(dict[str, Any], False, anything, _look_at_anything, "any attribute value")


@dataclass(frozen=True, slots=True)
class _Attribute:
    """``field`` is its name in the class, ``name`` that in the item."""

    field: str
    name: str
    required: bool
    value: _Value


class _Object:
    """A class: its attributes, in a structure of their own."""

    def __init__(self, make: Callable[..., Any], forbid_unknown_fields: bool, tag_field: str | None) -> None:
        self.wire: Any = None  # until it is complete
        self._make = make
        self._forbid = forbid_unknown_fields
        self._tag_field = tag_field  # an attribute that was looked at already
        self._attributes: list[_Attribute] = []

    def complete(self, attributes: list[_Attribute]) -> None:
        """TypeError when msgspec takes the name of an attribute for none."""
        self._attributes = attributes
        members = [_member(place, attribute) for place, attribute in enumerate(attributes)]
        if self._forbid and self._tag_field is not None:
            members.append(("tag", Any, msgspec.field(name=self._tag_field, default=None)))
        try:
            self.wire = msgspec.defstruct("Item", members, kw_only=True, forbid_unknown_fields=self._forbid, gc=False)
        except ValueError as error:  # quotes, backslashes and control characters
            raise TypeError(str(error)) from error
        self._fields = [attribute.field for attribute in attributes]
        self._positional = _takes_in_order(self._make, self._fields)
        self._optional = [place for place, attribute in enumerate(attributes) if not attribute.required]
        unwraps = [(place, attribute.value.unwrap) for place, attribute in enumerate(attributes)]
        self._unwraps = [(place, unwrap) for place, unwrap in unwraps if unwrap is not None]
        paths = [f"attribute{place}" + ".value" * one.value.inside for place, one in enumerate(attributes)]
        self._values_of = _values_of(paths)

    def unwrap(self, wire: Any) -> Any:
        values = list(self._values_of(wire))
        for place, unwrap in self._unwraps:
            value = values[place]
            if value is not UNSET:
                values[place] = unwrap(value)
        for place in self._optional:
            if values[place] is UNSET:
                given = {field: value for field, value in zip(self._fields, values, strict=True) if value is not UNSET}
                return self._make(**given)
        if self._positional:
            return self._make(*values)
        return self._make(**dict(zip(self._fields, values, strict=True)))

    def from_map(self, attributes: dict[str, Any]) -> Any:
        """Of what JSON had, instead of from its text."""
        return self.unwrap(msgspec.convert(attributes, self.wire))

    def look(self, attributes: Any, path: str) -> None:
        if type(attributes) is not dict:
            raise Mismatch(path, "a map", "none")
        for one in self._attributes:
            if one.name in attributes:
                one.value.look(attributes[one.name], _inside(path, one.name))
            elif one.required:
                raise Mismatch(_inside(path, one.name), one.value.expected, "nothing")
        if self._forbid and not attributes.keys() <= {self._tag_field, *(one.name for one in self._attributes)}:
            raise Mismatch(path, "no attributes that the class has not (forbid_unknown_fields)", "others")


def _member(place: int, attribute: _Attribute) -> tuple[str, Any, Any]:
    value = attribute.value
    if attribute.required:
        return f"attribute{place}", value.wire, msgspec.field(name=attribute.name)
    # So that a missing one is found where the others are.
    missing = value.wire(UNSET) if value.inside else UNSET
    type_ = value.wire if value.inside else value.wire | UnsetType
    return f"attribute{place}", type_, msgspec.field(name=attribute.name, default=missing)


def _values_of(paths: list[str]) -> Callable[[Any], Iterable[Any]]:
    """Gets all of them in one call that does not come back to Python; of a single one that would be no tuple."""
    if len(paths) > 1:
        return attrgetter(*paths)
    single = [attrgetter(path) for path in paths]
    return lambda wire: [get(wire) for get in single]


def _takes_in_order(make: Any, fields: list[str]) -> bool:
    """Whether its arguments are these, and may be given without their names, which is faster."""
    try:
        parameters = signature(make).parameters.values()
    except (TypeError, ValueError):  # dict has none
        return False
    names = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    return names == fields and len(names) == len(parameters)


class _Compiler:
    """One compilation; classes that hold themselves are met again while they are compiled."""

    def __init__(self) -> None:
        self._objects: dict[int, _Object] = {}

    def value(self, type_: inspect.Type) -> _Value:
        forms = self.forms(type_)
        return _ANYTHING if forms is None else _value(forms)

    def forms(self, type_: inspect.Type) -> list[Form] | None:
        """None for what takes every form. TypeError."""
        while isinstance(type_, inspect.Metadata):
            type_ = type_.type
        match type_:
            case inspect.AnyType():
                return None
            case inspect.UnionType():
                return self._union(type_)
            case inspect.EnumType():
                return enumerated(type_.cls.__name__, [member.value for member in type_.cls], type_.cls)
            case inspect.LiteralType():
                values = type_.values
                return enumerated("Literal", values, lambda value: values[values.index(value)])
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
                return [self._class(type_)]
            case inspect.CollectionType() | inspect.DictType():
                forms, base = self._container(type_)
                constraints = constraints_of(type_)
                if not constraints:
                    return forms
                return [with_check(form, constrained(base, constraints)) for form in forms]
            case _:
                return [annotated_scalar(type_)]

    def _union(self, type_: inspect.UnionType) -> list[Form] | None:
        tagged = [one for one in type_.types if isinstance(one, inspect.StructType) and one.tag is not None]
        forms = [self._tagged(tagged)] if tagged else []
        for one in type_.types:
            if one not in tagged:
                more = self.forms(one)
                if more is None:
                    return None
                forms += more
        return forms

    def _container(self, type_: inspect.Type) -> tuple[list[Form], type]:
        match type_:
            case inspect.ListType():
                return [_list("list", self.value(type_.item_type), list)], list
            case inspect.VarTupleType():
                return [_list("tuple", self.value(type_.item_type), tuple)], tuple
            case inspect.SetType():
                return _sets(self.forms(type_.item_type), set), set
            case inspect.FrozenSetType():
                return _sets(self.forms(type_.item_type), frozenset), frozenset
            case inspect.DictType(key_type=inspect.AnyType() | inspect.StrType() as key) if not constraints_of(key):
                return [_dict(self.value(type_.value_type))], dict
        raise TypeError(f"no attribute of an item can become {type_!r}")

    def _class(self, type_: inspect.StructType | inspect.DataclassType | inspect.TypedDictType) -> Form:
        if isinstance(type_, inspect.StructType) and type_.tag is not None:
            return self._tagged([type_])
        name = type_.cls.__name__
        known = self._objects.get(id(type_))
        if known is not None and known.wire is None:  # it holds itself
            return Form("M", name, dict[str, Any], known.from_map, known.look)
        found = self._object(type_)
        return Form("M", name, found.wire, found.unwrap, found.look)

    def _tagged(self, types: list[inspect.StructType]) -> Form:
        """Structures that an attribute of theirs tells apart."""
        field = str(types[0].tag_field)
        by_tag = {str(type_.tag): self._object(type_) for type_ in types}
        descriptors = {"S" if isinstance(type_.tag, str) else "N" for type_ in types}
        expected = " or ".join(descriptors)
        name = " | ".join(type_.cls.__name__ for type_ in types)

        def chosen(attributes: dict[str, Any]) -> _Object:
            tag = attributes.get(field)
            if type(tag) is dict and len(tag) == 1 and tag.keys() <= descriptors:
                (text,) = tag.values()
                if type(text) is str and text in by_tag:
                    return by_tag[text]
            raise Mismatch(field, f"the tag ({expected}) of {name}", "nothing" if tag is None else "another")

        def look(attributes: Any, path: str) -> None:
            if type(attributes) is not dict:
                raise Mismatch(path, name, "M that is none")
            try:
                found = chosen(attributes)
            except Mismatch as error:
                raise Mismatch(_inside(path, error.path), error.expected, error.found) from None
            found.look(attributes, path)

        return Form("M", name, dict[str, Any], lambda attributes: chosen(attributes).from_map(attributes), look)

    def _object(self, type_: inspect.StructType | inspect.DataclassType | inspect.TypedDictType) -> _Object:
        known = self._objects.get(id(type_))
        if known is not None:
            return known
        fields = list(type_.fields)
        if isinstance(type_, inspect.DataclassType):
            if not dataclasses.is_dataclass(type_.cls):
                raise TypeError(f"{type_.cls.__name__} is a class of attrs: give a msgspec.Struct or a dataclass")
            given = {field.name for field in dataclasses.fields(type_.cls) if field.init}
            fields = [field for field in fields if field.name in given]
        make = dict if isinstance(type_, inspect.TypedDictType) else type_.cls
        forbid, tag_field = getattr(type_, "forbid_unknown_fields", False), getattr(type_, "tag_field", None)
        found = self._objects[id(type_)] = _Object(make, forbid, tag_field)
        found.complete([_Attribute(one.name, one.encode_name, one.required, self.value(one.type)) for one in fields])
        return found
