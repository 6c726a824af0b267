"""Reading what a Lambda event source mapping was saved as: JSON or YAML, from the CLI or out of a template.

CloudFormation's functions (``!GetAtt``, ``{"Ref": ...}``) have no value before a deployment; they become `Unresolved`,
so that a missing value cannot be taken for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from consumer.domain.errors import StreamConsumerError

MAPPING_TYPE = "AWS::Lambda::EventSourceMapping"
FUNCTION_TYPE = "AWS::Serverless::Function"
_STREAM_EVENTS = ("DynamoDB", "Kinesis", "MSK", "SQS", "SelfManagedKafka", "MQ", "DocumentDB")
_SIGNS = frozenset({"EventSourceArn", "EventSourceMappingArn", "Stream", "SelfManagedEventSource", "StartingPosition"})
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class NotAMapping(StreamConsumerError):
    """The document is malformed, or holds no event source mapping, or several."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A CloudFormation function, `!GetAtt Orders.StreamArn`: its short name and its argument as text."""

    function: str
    argument: str

    def __str__(self) -> str:
        return f"!{self.function} {self.argument}".strip()

    @property
    def logical_name(self) -> str:
        """The one resource it refers to: `Orders` of `!Ref Orders`, `!GetAtt Orders.Arn` and `!Sub ${Orders.Arn}`."""
        argument = self.argument
        if argument.startswith("${") and argument.endswith("}"):
            argument = argument[2:-1]
        return argument.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Found:
    """One mapping: its properties, and what a template says about its function beside it."""

    properties: Mapping[Any, Any]
    function: Mapping[Any, Any]
    function_name: str = ""


class _Loader(yaml.SafeLoader):
    """Plain values; every tag that is not YAML's own is a CloudFormation function."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> Unresolved:
    if isinstance(node, yaml.ScalarNode):
        argument: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        argument = loader.construct_sequence(node, deep=True)
    else:
        argument = loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else ""
    return Unresolved(suffix, _argument(argument))


_Loader.add_multi_constructor("!", _function)


def _argument(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_argument(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_argument(item)}" for key, item in value.items())
    return str(value)


def decode(raw: bytes) -> str:
    """The text of a file; PowerShell's ``>`` writes UTF-16. Raises NotAMapping."""
    try:
        return raw.decode("utf-16" if raw.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotAMapping(f"is not text in UTF-8: {error.reason} at byte {error.start}") from None


def parse(text: str) -> Any:
    """The document as plain values and `Unresolved`. Raises NotAMapping when it is neither JSON nor YAML."""
    try:
        return _resolved(json.loads(text))
    except RecursionError:
        raise NotAMapping("is nested too deeply") from None
    except ValueError as error:
        looks_like_json = text.lstrip().startswith(("{", "["))
        in_json = f"is not JSON: {error}"
    try:
        return _resolved(yaml.load(text, Loader=_Loader))  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise NotAMapping(
            in_json if looks_like_json else f"is neither JSON nor YAML: {_first_problem(error)}"
        ) from None


def _first_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return " ".join(f"{place}{problem}".split())


def _resolved(value: Any) -> Any:
    """JSON's long form of the functions as `Unresolved`; ``AWS::NoValue`` as absent."""
    if isinstance(value, dict):
        if len(value) == 1:
            [(key, argument)] = value.items()
            if key == "Ref" or (isinstance(key, str) and key.startswith("Fn::")):
                dotted = key == "Fn::GetAtt" and isinstance(argument, list)
                text = ".".join(map(str, argument)) if dotted else _argument(_resolved(argument))
                return Unresolved(key.removeprefix("Fn::"), text)
        items = {key: _resolved(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if not _no_value(item)}
    if isinstance(value, list):
        return [item for item in map(_resolved, value) if not _no_value(item)]
    return value


def _no_value(value: Any) -> bool:
    return isinstance(value, Unresolved) and value.function == "Ref" and value.argument == "AWS::NoValue"


def find(document: Any) -> Found:
    """The one mapping of a document: its own properties, a resource, an event, a list or a template around it.

    NotAMapping: there is none, or more than one (named in the message).
    """
    if not isinstance(document, Mapping):
        raise NotAMapping(f"is no event source mapping: it holds {_kind(document)}, not an object")
    found = list(_candidates(document))
    if len(found) == 1:
        return found[0][1]
    if found:
        names = ", ".join(name for name, _ in found)
        raise NotAMapping(
            f"holds {len(found)} event source mappings ({names}): put the one to import into its own file"
        )
    raise NotAMapping(
        "is no event source mapping: wanted is the output of `aws lambda get-event-source-mapping`, an "
        f"{MAPPING_TYPE}, or a SAM event of type DynamoDB"
    )


def _kind(document: Any) -> str:
    if document is None:
        return "nothing"
    return "a list" if isinstance(document, list) else f"a single {type(document).__name__}"


def _mapping(value: Any) -> Mapping[Any, Any]:
    """The value when it is a mapping; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _candidates(document: Mapping[Any, Any]) -> Iterator[tuple[str, Found]]:
    listed, resources = document.get("EventSourceMappings"), document.get("Resources")
    if isinstance(listed, list):
        for item in listed:
            if isinstance(item, Mapping):
                yield str(item.get("UUID", "?")), Found(item, {})
    elif isinstance(resources, Mapping):
        functions = _functions(resources, document.get("Globals"))
        for name, resource in resources.items():
            yield from _of_resource(str(name), _mapping(resource), functions)
    elif isinstance(document.get("Type"), str):
        yield from _of_resource("", document, {})
    elif _SIGNS.intersection(document):
        yield "", Found(document, {})


def _functions(resources: Mapping[Any, Any], shared: Any) -> dict[str, Mapping[Any, Any]]:
    """The properties of a template's functions by their logical names, with SAM's ``Globals`` where one is silent."""
    defaults = {FUNCTION_TYPE: _mapping(_mapping(shared).get("Function")), "AWS::Lambda::Function": {}}
    return {
        str(name): _merged(defaults[resource["Type"]], _mapping(resource.get("Properties")))
        for name, resource in resources.items()
        if _mapping(resource).get("Type") in tuple(defaults)  # a tuple: in a malformed template it may be unhashable
    }


def _merged(defaults: Mapping[Any, Any], own: Mapping[Any, Any]) -> dict[Any, Any]:
    """As SAM does it: mappings are joined, anything else is replaced."""
    both = {**defaults, **own}
    for key, value in own.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            both[key] = _merged(default, value)
    return both


def _of_resource(
    name: str, resource: Mapping[Any, Any], functions: Mapping[str, Mapping[Any, Any]]
) -> Iterator[tuple[str, Found]]:
    kind, properties = resource.get("Type"), resource.get("Properties")
    if not isinstance(properties, Mapping):
        return
    if kind == MAPPING_TYPE or kind in _STREAM_EVENTS:
        called = properties.get("FunctionName")
        logical = called.logical_name if isinstance(called, Unresolved) else ""
        yield name, Found(properties, functions.get(logical, {}))
    elif kind == FUNCTION_TYPE:
        for key, event in _mapping(properties.get("Events")).items():
            inner = _mapping(event).get("Properties")
            if isinstance(inner, Mapping) and event.get("Type") in _STREAM_EVENTS:
                yield f"{name}.{key}", Found(inner, functions.get(name, properties), name)
