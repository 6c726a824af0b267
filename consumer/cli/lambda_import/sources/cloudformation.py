"""Templates of CloudFormation and SAM, also as CDK writes them: their mappings, and the events of their functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from consumer.cli.lambda_import.found import Contents, Found, Note, as_mapping
from consumer.cli.lambda_import.intrinsics import Intrinsic, Resolver
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.source_kind import source_kind
from consumer.cli.lambda_import.sources.cloudformation_functions import SAM_FUNCTION, Functions

MAPPING_TYPE = "AWS::Lambda::EventSourceMapping"
_EVENTS = {
    "DynamoDB": "DynamoDB", "Kinesis": "Kinesis", "SQS": "SQS", "MSK": "Kafka", "SelfManagedKafka": "Kafka",
    "MQ": "MQ", "DocumentDB": "DocumentDB",
}  # fmt: skip
"""SAM's events that become event source mappings, and what they read. All others (Api, Schedule, ...) do not."""


def is_resource(document: Mapping[Any, Any]) -> bool:
    """Whether it is one mapping or one event, taken out of its template."""
    kind = document.get("Type")
    return isinstance(kind, str) and (kind in (MAPPING_TYPE, SAM_FUNCTION) or kind in _EVENTS)


def one_resource(document: Mapping[Any, Any], parameters: Parameters) -> Contents:
    """A resource or an event without its template."""
    kind = document["Type"]
    if kind in _EVENTS:
        document = {"Type": SAM_FUNCTION, "Properties": {"Events": {"event": document}}}
    contents = template_mappings({"Resources": {"the mapping": document}}, parameters)
    if kind in _EVENTS:  # what was put around it says nothing about the function
        contents.mappings = [Found(f"the {kind} event", one.properties, one.source) for one in contents.mappings]
    return contents


def template_mappings(template: Mapping[Any, Any], parameters: Parameters) -> Contents:
    """All mappings of a template, with the functions behind them."""
    return _Template(template, parameters).contents()


def _with_condition(found: Found, condition: Any) -> Found:
    if condition is None:
        return found
    note = Note("Condition", f"it exists only in deployments for which {condition} holds")
    return replace(found, notes=(*found.notes, note))


class _Template:
    def __init__(self, template: Mapping[Any, Any], parameters: Parameters) -> None:
        self._resources = as_mapping(template.get("Resources"))
        self._parameters = parameters
        self._resolver = Resolver(template, parameters)
        shared = as_mapping(as_mapping(template.get("Globals")).get("Function"))
        self._functions = Functions(self._resources, shared, self._resolver)
        parameters.notes()  # what was needed to name the functions concerns no mapping

    def contents(self) -> Contents:
        contents = Contents()
        for name, resource in self._resources.items():
            if str(name).startswith("Fn::"):
                reason = "what it makes is not looked at: import the output of `aws cloudformation get-template "
                contents.notes.append(Note(str(name), f"{reason}--template-stage Processed`"))
                continue
            kind = as_mapping(resource).get("Type")
            if kind not in (MAPPING_TYPE, SAM_FUNCTION):
                continue
            found = self._mapping if kind == MAPPING_TYPE else self._events
            for one in found(str(name), resource.get("Properties")):
                if isinstance(one, Note):
                    contents.notes.append(one)
                else:
                    contents.mappings.append(_with_condition(one, resource.get("Condition")))
        return contents

    def _mapping(self, name: str, properties: Any) -> Iterator[Found | Note]:
        if not isinstance(properties, Mapping):
            yield Note(name, f"its properties cannot be known from here: {properties}")
            return
        resolved = self._resolver.resolve(properties)
        function = self._functions.behind(resolved.get("FunctionName"))
        also = (function.name,) if function else ()
        kind = source_kind(resolved, self._type_of)
        yield Found(name, resolved, kind, function, name, also, self._parameters.notes())

    def _events(self, name: str, properties: Any) -> Iterator[Found | Note]:
        events = as_mapping(properties).get("Events")
        if isinstance(events, Intrinsic):
            yield Note(f"{name}.Events", f"they cannot be known from here: {events}")
        for key, event in as_mapping(events).items():
            kind, inner = str(as_mapping(event).get("Type")), as_mapping(event).get("Properties")
            shown = f"{name}.{key}"
            if isinstance(event, Intrinsic) or (kind in _EVENTS and not isinstance(inner, Mapping)):
                yield Note(shown, f"it cannot be known from here: {event}")
            elif kind in _EVENTS:
                resolved = self._resolver.resolve(inner)
                function = self._functions.named(name)
                also = (f"{name}{key}", name, str(key))
                yield Found(shown, resolved, _EVENTS[kind], function, str(key), also, self._parameters.notes())

    def _type_of(self, name: str) -> str:
        return str(as_mapping(self._resources.get(name)).get("Type", ""))
