"""The functions of CloudFormation (``!GetAtt``, ``{"Fn::Sub": ...}``), resolved as far as a file can know them.

What only a deployment knows becomes `Unresolved`, so that a missing value cannot be taken for one. Conditions are not
judged: ``Fn::If`` has a value when both of its branches are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consumer.cli.lambda_import.found import as_list, as_mapping
from consumer.cli.lambda_import.parameters import Parameters

NO_VALUE: Final = object()
"""What ``AWS::NoValue`` is: the property is as if it were not there."""

_SUBSTITUTION = re.compile(r"\$\{(!?)([^}]*)\}")
_DYNAMIC_REFERENCE = "{{resolve:"


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """A function as the file has it: `Ref`, `GetAtt`, `Sub`, ... and its argument."""

    name: str
    argument: Any

    def __str__(self) -> str:
        return f"!{self.name} {_written(self.argument, self.name)}".strip()


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A value that only a deployment knows.

    Attributes:
        shown: how the file has it, such as `!GetAtt Orders.StreamArn`.
        text: the same as text with `${Orders.StreamArn}` in place of what is missing.
        resources: the names of what it refers to, such as `Orders`.
    """

    shown: str
    text: str = ""
    resources: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.shown


def holds_unresolved(value: Any) -> bool:
    """Whether a part of it is known after a deployment only."""
    if isinstance(value, Mapping):
        return any(map(holds_unresolved, (*value.keys(), *value.values())))
    if isinstance(value, list):
        return any(map(holds_unresolved, value))
    return isinstance(value, Unresolved | Intrinsic)


def as_intrinsics(value: Any) -> Any:
    """A document of JSON with the long form of the functions, ``{"Ref": ...}``, as `Intrinsic`."""
    if isinstance(value, dict):
        if len(value) == 1:
            [(key, argument)] = value.items()
            if key == "Ref" or (isinstance(key, str) and key.startswith("Fn::") and key.count("::") == 1):
                return Intrinsic(key.removeprefix("Fn::"), as_intrinsics(argument))
        return {key: as_intrinsics(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_intrinsics(item) for item in value]
    if isinstance(value, Intrinsic):
        return Intrinsic(value.name, as_intrinsics(value.argument))
    return value


def _written(value: Any, function: str = "") -> str:
    if function == "GetAtt" and isinstance(value, list):
        return ".".join(map(_written, value))
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_written(item)}" for key, item in value.items())
    return str(value)


class Resolver:
    """Values of a template: its parameters with their defaults, its mappings, and the functions over them."""

    def __init__(self, template: Mapping[Any, Any], parameters: Parameters) -> None:
        self._declared = as_mapping(template.get("Parameters"))
        self._tables = as_mapping(template.get("Mappings"))
        self._given = parameters
        parameters.declare(self._declared)
        self._functions: Mapping[str, Callable[[Any, Unresolved], Any]] = {
            "Ref": self._ref,
            "GetAtt": self._attribute,
            "Sub": self._sub,
            "Join": self._join,
            "If": self._if,
            "FindInMap": self._find_in_map,
            "Select": self._select,
            "Split": self._split,
            "ToJsonString": self._to_json,
        }

    def resolve(self, value: Any) -> Any:
        """The value; `Unresolved` where only a deployment knows it, `NO_VALUE` for ``AWS::NoValue``."""
        if isinstance(value, Intrinsic):
            unresolved = Unresolved(str(value), f"${{{value}}}")
            function = self._functions.get(value.name)
            return function(value.argument, unresolved) if function else unresolved
        if isinstance(value, Mapping):
            items = {key: self.resolve(item) for key, item in value.items()}
            return {key: item for key, item in items.items() if item is not NO_VALUE}
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NO_VALUE]
        if isinstance(value, str) and _DYNAMIC_REFERENCE in value:
            return Unresolved(value, value)
        return value

    def _ref(self, argument: Any, unresolved: Unresolved) -> Any:
        name = str(argument)
        if name == "AWS::NoValue":
            return NO_VALUE
        known = Unresolved(unresolved.shown, f"${{{name}}}", () if name.startswith("AWS::") else (name,))
        if name in self._declared or name.startswith("AWS::"):
            return self._parameter(name, known)
        return known

    def _parameter(self, name: str, unresolved: Unresolved) -> Any:
        declared = as_mapping(self._declared.get(name))
        kind, value = str(declared.get("Type", "")), self._given.given(name)
        if value is None:
            # the default of such a parameter names an entry of the parameter store, whose value nobody knows here
            if kind.startswith("AWS::SSM::") or declared.get("Default") is None:
                return unresolved
            secret = str(declared.get("NoEcho")).lower() == "true"
            value = self._given.default(name, declared["Default"], secret=secret)
        if isinstance(value, str) and "List" in kind:
            return [item.strip() for item in value.split(",")]
        return self.resolve(value)

    def _attribute(self, argument: Any, unresolved: Unresolved) -> Any:
        parts = argument if isinstance(argument, list) else str(argument).split(".", 1)
        path = ".".join(map(_written, parts))
        return Unresolved(unresolved.shown, f"${{{path}}}", (str(parts[0]),) if parts else ())

    def _sub(self, argument: Any, unresolved: Unresolved) -> Any:
        template, variables = (argument, {}) if not isinstance(argument, list) else (*argument, {}, {})[:2]
        if not isinstance(template, str):
            return unresolved
        values: list[Any] = []

        def replace(match: re.Match[str]) -> str:
            literal, name = match[1], match[2].strip()
            if literal:
                return f"${{{match[2]}}}"
            inner = as_mapping(variables).get(name, Intrinsic("GetAtt" if "." in name else "Ref", name))
            values.append(self.resolve(inner))
            return _text(values[-1])

        return _joined(_SUBSTITUTION.sub(replace, template), values, unresolved)

    def _join(self, argument: Any, unresolved: Unresolved) -> Any:
        delimiter, parts = (*as_list(argument), None, None)[:2]
        parts = self.resolve(parts)
        if not isinstance(delimiter, str) or not isinstance(parts, list):
            return unresolved
        return _joined(delimiter.join(map(_text, parts)), parts, unresolved)

    def _if(self, argument: Any, unresolved: Unresolved) -> Any:
        if len(as_list(argument)) != 3:
            return unresolved
        one, other = self.resolve(argument[1]), self.resolve(argument[2])
        if one == other:
            return one
        resources = dict.fromkeys(name for one in (one, other) if isinstance(one, Unresolved) for name in one.resources)
        return Unresolved(unresolved.shown, unresolved.text, tuple(resources))

    def _find_in_map(self, argument: Any, unresolved: Unresolved) -> Any:
        keys = self.resolve(argument)
        if not isinstance(keys, list) or len(keys) < 3 or holds_unresolved(keys[:3]):
            return unresolved
        found: Any = self._tables
        for key in keys[:3]:
            found = {str(name): item for name, item in as_mapping(found).items()}.get(str(key))
        return unresolved if found is None else self.resolve(found)

    def _select(self, argument: Any, unresolved: Unresolved) -> Any:
        index, items = (*as_list(self.resolve(argument)), None, None)[:2]
        if isinstance(items, list) and str(index).isdigit() and int(index) < len(items):
            return items[int(index)]
        return unresolved

    def _split(self, argument: Any, unresolved: Unresolved) -> Any:
        delimiter, text = (*as_list(self.resolve(argument)), None, None)[:2]
        if isinstance(delimiter, str) and delimiter and isinstance(text, str):
            return text.split(delimiter)
        return unresolved

    def _to_json(self, argument: Any, unresolved: Unresolved) -> Any:
        value = self.resolve(argument)
        return unresolved if holds_unresolved(value) or value is NO_VALUE else json.dumps(value)


def _text(value: Any) -> str:
    if isinstance(value, Unresolved):
        return value.text
    return str(value).lower() if isinstance(value, bool) else str(value)


def _joined(text: str, parts: list[Any], unresolved: Unresolved) -> Any:
    """The text when all of its parts are known texts or numbers; otherwise it is unresolved, with what it refers to."""
    if all(isinstance(part, str | int | float) for part in parts) and _DYNAMIC_REFERENCE not in text:
        return text
    resources = dict.fromkeys(name for part in parts if isinstance(part, Unresolved) for name in part.resources)
    return Unresolved(unresolved.shown, text, tuple(resources))
