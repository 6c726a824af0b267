"""The functions of a template, and which of them a mapping means, by whatever way it names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from consumer.cli.lambda_import.found import Function, as_mapping
from consumer.cli.lambda_import.intrinsics import Resolver, Unresolved

SAM_FUNCTION: Final = "AWS::Serverless::Function"
_FUNCTIONS = ("AWS::Lambda::Function", SAM_FUNCTION)
_LEADS_TO_ONE = ("AWS::Lambda::Version", "AWS::Lambda::Alias")
_ONE_REFERENCE = re.compile(r"\$\{([^}.]+)[^}]*\}")
_NAME_OR_REFERENCES = re.compile(r"(?:\$\{[^}]*\}|[^:$])+")
_MAX_STEPS = 5  # an alias of a version of a function; what is longer leads back to itself


def function_name_text(value: Any) -> str:
    """The part of a name or an ARN that names the function, without alias and version. References stay in it."""
    text = value.text if isinstance(value, Unresolved) else value if isinstance(value, str) else ""
    _, is_arn, rest = text.rpartition("function:")
    name = _NAME_OR_REFERENCES.match(rest if is_arn else text)
    return name[0] if name and (is_arn or name[0] != "arn") else ""


class Functions:
    """The functions of a template by logical id, and by the name they will have.

    Args:
        resources: those of the template.
        shared: SAM's ``Globals.Function``.
        resolver: the values of the template.
    """

    def __init__(self, resources: Mapping[Any, Any], shared: Mapping[Any, Any], resolver: Resolver) -> None:
        self._resources = resources
        self._shared = shared
        self._resolver = resolver
        self._by_name: dict[str, str] = {}
        for name, resource in resources.items():
            if as_mapping(resource).get("Type") in _FUNCTIONS:
                own = as_mapping(resource.get("Properties")).get("FunctionName")
                self._by_name[function_name_text(resolver.resolve(own))] = str(name)
        self._by_name.pop("", None)

    def behind(self, value: Any, steps: int = 0) -> Function | None:
        """The function that a resolved `FunctionName` means; None when it is not in the template, or not one."""
        name = function_name_text(value)
        if name in self._by_name:
            return self.named(self._by_name[name])
        reference = _ONE_REFERENCE.fullmatch(name)
        if reference and (found_one := self.named(reference[1], steps)):
            return found_one
        if isinstance(value, Unresolved):
            found = {one.name: one for one in (self.named(each, steps) for each in value.resources) if one}
            return next(iter(found.values())) if len(found) == 1 else None
        return None

    def named(self, name: str, steps: int = 0) -> Function | None:
        """The function of a logical id, also of a version or an alias of it."""
        name = name.partition(".")[0]  # SAM's !Ref Projector.Alias
        resource = as_mapping(self._resources.get(name))
        kind, properties = resource.get("Type"), as_mapping(resource.get("Properties"))
        if kind in _LEADS_TO_ONE and steps < _MAX_STEPS:
            return self.behind(self._resolver.resolve(properties.get("FunctionName")), steps + 1)
        if kind == SAM_FUNCTION:
            properties = merged(self._shared, properties)
        if kind in _FUNCTIONS:
            wanted = {key: value for key, value in properties.items() if key != "Events"}
            return Function(name, self._resolver.resolve(wanted))
        return None if resource else self._with_alias(name)

    def _with_alias(self, name: str) -> Function | None:
        """SAM makes an alias of ``AutoPublishAlias`` and calls it after both."""
        for logical_id, resource in self._resources.items():
            properties = merged(self._shared, as_mapping(as_mapping(resource).get("Properties")))
            alias = self._resolver.resolve(properties.get("AutoPublishAlias"))
            if as_mapping(resource).get("Type") == SAM_FUNCTION and name == f"{logical_id}Alias{alias}":
                return self.named(str(logical_id))
        return None


def merged(defaults: Mapping[Any, Any], own: Mapping[Any, Any]) -> dict[Any, Any]:
    """As SAM does it: mappings are joined, anything else is replaced."""
    both = {**defaults, **own}
    for key, value in own.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            both[key] = merged(default, value)
    return both
