"""Terraform in JSON: ``terraform show -json`` of a state or a plan, and the state file itself.

A plan leaves out what only an apply will know. It is found in ``after_unknown``, and counts as unresolved where the
configuration sets it; where it does not, the provider only reads back Lambda's default.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.cli.lambda_import.found import Contents, Found, Function, as_list, as_mapping
from consumer.cli.lambda_import.intrinsics import Unresolved
from consumer.cli.lambda_import.source_kind import source_kind
from consumer.cli.lambda_import.sources.cloudformation_functions import function_name_text
from consumer.cli.lambda_import.sources.terraform_names import (
    ALIAS_TYPE,
    FUNCTION_TYPE,
    MAPPING_TYPE,
    function_options,
    mapping_options,
    references,
)

_INDEX = re.compile(r"\[[^\]]*\]")
_ALWAYS_SET = frozenset({"filter_criteria", "destination_config", "function_response_types"})
"""The provider never fills these in, and a configuration does not show the ones of dynamic blocks."""


@dataclass(frozen=True, slots=True)
class _Resource:
    module: str
    kind: str
    name: str
    address: str
    attributes: Mapping[Any, Any]

    @property
    def local(self) -> str:
        """How its own module refers to it."""
        return f"{self.kind}.{self.name}"


def is_terraform_json(document: Mapping[Any, Any]) -> bool:
    """Whether it is a state or a plan."""
    return "terraform_version" in document or "planned_values" in document


def terraform_mappings(document: Mapping[Any, Any]) -> Contents:
    """The mappings of a state or a plan, those of its modules included."""
    return _Terraform(document).contents()


class _Terraform:
    def __init__(self, document: Mapping[Any, Any]) -> None:
        self._changes = {
            str(change.get("address")): as_mapping(change.get("change"))
            for change in map(as_mapping, as_list(document.get("resource_changes")))
        }
        self._configured = dict(_configuration("", as_mapping(document.get("configuration")).get("root_module")))
        self._resources = list(_resources(document))

    def contents(self) -> Contents:
        return Contents([self._found(one) for one in self._resources if one.kind == MAPPING_TYPE])

    def _found(self, resource: _Resource) -> Found:
        attributes = self._complete(resource)
        function = self._function(resource, attributes)
        properties = mapping_options(attributes)
        label = resource.address.removeprefix(f"{MAPPING_TYPE}.")
        also = (resource.name, *([function.name] if function else []), str(attributes.get("uuid", "")))
        return Found(resource.address, properties, source_kind(properties, _type), function, label, also)

    def _complete(self, resource: _Resource) -> dict[Any, Any]:
        """The attributes, with what an apply will know in its places."""
        unknown = self._changes.get(resource.address, {}).get("after_unknown")
        expressions = self._configured.get(_INDEX.sub("", resource.address))
        attributes = dict(resource.attributes)
        for key, flags in as_mapping(unknown).items():
            if expressions is not None and key not in expressions and key not in _ALWAYS_SET:
                continue  # nobody sets it
            named = references((expressions or {}).get(key))
            attributes[key] = _overlaid(attributes.get(key), flags, f"{resource.address}.{key}", named)
        for key, expression in (expressions or {}).items():
            if attributes.get(key) is None and references(expression) and resource.address not in self._changes:
                attributes[key] = _unknown(f"{resource.address}.{key}", references(expression))
        return attributes

    def _function(self, resource: _Resource, attributes: Mapping[Any, Any]) -> Function | None:
        for option in ("function_name", "function_arn"):
            wanted = function_name_text(attributes.get(option))
            for one in self._resources:
                if wanted and one.kind == FUNCTION_TYPE and one.attributes.get("function_name") == wanted:
                    return self._options(one)
        return self._referred(resource, "function_name", 2)

    def _referred(self, resource: _Resource, option: str, steps: int) -> Function | None:
        """The function that the configuration refers to, also by an alias of it."""
        expressions = self._configured.get(_INDEX.sub("", resource.address)) or {}
        named = references(expressions.get(option))
        near = [one for one in self._resources if one.module == resource.module and one.local in named]
        found = [one for one in near if one.kind == FUNCTION_TYPE]
        if len(found) == 1:
            return self._options(found[0])
        aliases = [one for one in near if one.kind == ALIAS_TYPE]
        return self._referred(aliases[0], option, steps - 1) if len(aliases) == 1 and steps else None

    def _options(self, function: _Resource) -> Function:
        return function_options(function.name, self._complete(function))


def _type(reference: str) -> str:
    return reference.partition(".")[0]


def _unknown(place: str, named: tuple[str, ...]) -> Unresolved:
    shown = " ".join(named) if named else "known after apply"
    return Unresolved(shown, f"${{{place}}}", named)


def _overlaid(value: Any, unknown: Any, place: str, named: tuple[str, ...]) -> Any:
    """The planned value with `Unresolved` wherever the plan says that it is not known yet."""
    if unknown is True:
        return _unknown(place, named)
    if isinstance(unknown, dict):
        known = dict(as_mapping(value))
        return known | {key: _overlaid(known.get(key), flag, f"{place}.{key}", named) for key, flag in unknown.items()}
    if isinstance(unknown, list):
        known_items = as_list(value)
        pairs = zip(unknown, [*known_items, *[None] * len(unknown)], strict=False)
        merged = [_overlaid(item, flag, f"{place}[{index}]", named) for index, (flag, item) in enumerate(pairs)]
        return merged + known_items[len(unknown) :]
    return value


def _resources(document: Mapping[Any, Any]) -> Iterator[_Resource]:
    shown = document.get("planned_values") or document.get("values")
    if isinstance(shown, Mapping):
        yield from _of_module("", shown.get("root_module"))
        return
    for entry in map(as_mapping, as_list(document.get("resources"))):  # the state file itself
        module, kind, name = (str(entry.get(key) or "") for key in ("module", "type", "name"))
        for instance in map(as_mapping, as_list(entry.get("instances"))):
            index = f"[{_written(instance['index_key'])}]" if "index_key" in instance else ""
            address = ".".join(part for part in (module, kind, f"{name}{index}") if part)
            if entry.get("mode") != "data":
                yield _Resource(module, kind, name, address, as_mapping(instance.get("attributes")))


def _written(index: object) -> str:
    return f'"{index}"' if isinstance(index, str) else str(index)


def _of_module(address: str, module: Any) -> Iterator[_Resource]:
    for entry in map(as_mapping, as_list(as_mapping(module).get("resources"))):
        kind, name = str(entry.get("type")), str(entry.get("name"))
        if entry.get("mode") != "data":
            place = str(entry.get("address", f"{kind}.{name}"))
            yield _Resource(address, kind, name, place, as_mapping(entry.get("values")))
    for child in map(as_mapping, as_list(as_mapping(module).get("child_modules"))):
        yield from _of_module(str(child.get("address", "")), child)


def _configuration(prefix: str, module: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """What the configuration of a plan sets, by address without indexes."""
    for entry in map(as_mapping, as_list(as_mapping(module).get("resources"))):
        yield f"{prefix}{entry.get('address')}", as_mapping(entry.get("expressions"))
    for name, call in as_mapping(as_mapping(module).get("module_calls")).items():
        yield from _configuration(f"{prefix}module.{name}.", as_mapping(call).get("module"))
