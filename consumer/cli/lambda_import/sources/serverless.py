"""``serverless.yml``: the ``stream`` events of its functions, and the mappings among its own resources."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from consumer.cli.lambda_import.found import DYNAMODB, KINESIS, Contents, Found, Function, Note, as_list, as_mapping
from consumer.cli.lambda_import.intrinsics import Resolver, Unresolved, holds_unresolved
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.source_kind import NO_FAN_OUT, source_kind
from consumer.cli.lambda_import.sources.cloudformation import template_mappings
from consumer.cli.lambda_import.sources.serverless_variables import Variables

_OPTIONS = {
    "arn": "EventSourceArn",
    "batchSize": "BatchSize",
    "startingPosition": "StartingPosition",
    "startingPositionTimestamp": "StartingPositionTimestamp",
    "batchWindow": "MaximumBatchingWindowInSeconds",
    "parallelizationFactor": "ParallelizationFactor",
    "maximumRetryAttempts": "MaximumRetryAttempts",
    "maximumRecordAgeInSeconds": "MaximumRecordAgeInSeconds",
    "bisectBatchOnFunctionError": "BisectBatchOnFunctionError",
    "tumblingWindowInSeconds": "TumblingWindowInSeconds",
    "enabled": "Enabled",
}
_DEFAULTS = {"BatchSize": 10, "StartingPosition": "TRIM_HORIZON"}
"""What the framework writes into its template where a stream event says nothing."""

_DEFAULT_TIMEOUT = 6
_OTHER_EVENTS = {
    "sqs": "SQS", "msk": "Kafka", "kafka": "Kafka", "activemq": "MQ", "rabbitmq": "MQ",
}  # fmt: skip
_MAY_BE_AN_OBJECT = re.compile(r"\$\{(?!cf|ssm|env:|opt:|aws:|sls:|AWS::)[a-zA-Z]+[:(]")
"""Variables that may stand for all of an event, with filters and destinations, and not for an ARN alone."""

_FUNCTION_OPTIONS = {"handler": "Handler", "runtime": "Runtime", "timeout": "Timeout", "name": "FunctionName"}


def is_serverless(document: Mapping[Any, Any]) -> bool:
    """Whether it is a service of the serverless framework."""
    return "functions" in document and ("provider" in document or "service" in document)


def serverless_mappings(document: Mapping[Any, Any], parameters: Parameters) -> Contents:
    """The stream events of a service, and what else becomes a mapping there."""
    return _Service(document, parameters).contents()


class _Service:
    def __init__(self, document: Mapping[Any, Any], parameters: Parameters) -> None:
        self._variables = Variables(document, parameters)
        self._parameters = parameters
        self._document = document
        self._templates = [
            as_mapping(one) for one in _one_or_more(self._variables.resolve(document.get("resources", {})))
        ]
        self._types = {
            str(name): str(as_mapping(resource).get("Type", ""))
            for template in self._templates
            for name, resource in as_mapping(template.get("Resources")).items()
        }
        self._intrinsics = Resolver({}, parameters)
        parameters.notes()

    def contents(self) -> Contents:
        contents = Contents()
        for block in _one_or_more(self._document.get("functions")):
            if not isinstance(block, Mapping):
                contents.notes.append(Note("functions", f"what {block} names is not looked into"))
            for name, function in as_mapping(block).items():
                if isinstance(function, Mapping):
                    self._of_function(str(name), function, contents)
                else:
                    contents.notes.append(Note(str(name), f"what {function} names is not looked into"))
        for template in self._templates:
            inner = template_mappings(template, self._parameters)
            contents.mappings += inner.mappings
            contents.notes += inner.notes
        return contents

    def _of_function(self, name: str, function: Mapping[Any, Any], contents: Contents) -> None:
        events = function.get("events")
        if events is not None and not isinstance(events, list):
            contents.notes.append(Note(f"{name}.events", f"what {events} names is not looked into"))
        found: list[Found] = []
        for one in self._events(name, function, as_list(events)):
            if isinstance(one, Note):
                contents.notes.append(one)
            else:
                found.append(one)
        streams = [one for one in found if one.name.startswith(f"{name}.stream")]
        if len(streams) == 1:
            found[found.index(streams[0])] = replace(streams[0], name=f"{name}.stream", label="stream")
        contents.mappings += found

    def _events(self, name: str, function: Mapping[Any, Any], events: list[Any]) -> Iterator[Found | Note]:
        count = 0
        for event in events:
            if isinstance(event, str) and "${" in event:
                yield Note(f"{name}.events", f"what {event} names is not looked into")
            for kind, settings in as_mapping(event).items():
                if kind in _OTHER_EVENTS:
                    yield Found(f"{name}.{kind}", {}, _OTHER_EVENTS[kind])
                elif kind == "stream":
                    count += 1
                    yield self._stream(f"{name}.stream{count}", name, function, settings)

    def _stream(self, shown: str, name: str, function: Mapping[Any, Any], settings: Any) -> Found | Note:
        value = self._value(settings)
        if isinstance(value, Unresolved) and _MAY_BE_AN_OBJECT.match(value.text):
            return Note(shown, f"what {value} names is not looked into")
        settings = value if isinstance(value, Mapping) else {"arn": value}
        properties = _properties(settings)
        kind = settings.get("type")
        source = source_kind(properties, lambda resource: self._types.get(resource, ""))
        if isinstance(kind, str):
            source = {"kinesis": KINESIS, "dynamodb": DYNAMODB}.get(kind, kind)
        described = self._function(name, function)
        notes = self._parameters.notes()
        if settings.get("consumer"):
            notes = (*notes, Note("consumer", NO_FAN_OUT))
        return Found(shown, properties, source, described, shown.partition(".")[2], (name,), notes)

    def _function(self, name: str, function: Mapping[Any, Any]) -> Function:
        provider = as_mapping(self._document.get("provider"))
        known = {
            option: self._value(function.get(key, provider.get(key) if key in ("runtime", "timeout") else None))
            for key, option in _FUNCTION_OPTIONS.items()
        }
        known = {option: value for option, value in known.items() if value is not None}
        shared, own = (self._value(as_mapping(each).get("environment")) for each in (provider, function))
        if isinstance(shared, Unresolved) or isinstance(own, Unresolved):
            known["Environment"] = own if isinstance(own, Unresolved) else shared
        elif shared or own:
            known["Environment"] = {"Variables": {**as_mapping(shared), **as_mapping(own)}}
        if "image" in function:
            known["PackageType"] = "Image"
        if "FunctionName" not in known:
            known["FunctionName"] = self._value("${self:service}-${sls:stage}-" + name)
        return Function(name, known, _DEFAULT_TIMEOUT)

    def _value(self, written: Any) -> Any:
        return self._intrinsics.resolve(self._variables.resolve(written))


def _properties(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """A stream event as the framework compiles it into its template."""
    properties: dict[str, Any] = dict(_DEFAULTS)
    for key, value in settings.items():
        if key in ("type", "consumer") or value is None:
            continue
        if key == "functionResponseType":
            properties["FunctionResponseTypes"] = [value]
        elif key == "filterPatterns":
            properties["FilterCriteria"] = _filters(value)
        elif key == "destinations":
            properties["DestinationConfig"] = _destination(value)
        elif value != 0 or key not in ("batchSize", "parallelizationFactor", "maximumRecordAgeInSeconds"):
            properties[_OPTIONS.get(str(key), str(key))] = value  # 0 means the default in these, as in the framework
    return properties


def _filters(patterns: Any) -> Any:
    if not isinstance(patterns, list):
        return patterns
    return {"Filters": [{"Pattern": _pattern(one)} for one in patterns]}


def _pattern(pattern: Any) -> Any:
    known = isinstance(pattern, Mapping) and not holds_unresolved(pattern)
    return json.dumps(pattern, default=str) if known else pattern


def _destination(destinations: Any) -> Any:
    if not isinstance(destinations, Mapping):
        return destinations
    target = destinations.get("onFailure")
    return {"OnFailure": {"Destination": target.get("arn")} if isinstance(target, Mapping) else target}


def _one_or_more(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
