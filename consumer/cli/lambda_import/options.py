"""The options of an event source mapping, read one by one, and a note on each that does not carry over by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from consumer.cli.lambda_import.commented_yaml import Reference, one_line
from consumer.cli.lambda_import.found import Note
from consumer.cli.lambda_import.intrinsics import Unresolved
from consumer.cli.lambda_import.values import UNSET, show, whole_number
from consumer.settings.units import format_duration

_SAYS_NOTHING = frozenset(
    {
        "UUID", "EventSourceMappingArn", "LastModified", "LastProcessingResult", "StateTransitionReason",
        "ResponseMetadata", "Id",
    }
)  # fmt: skip
"""What `get-event-source-mapping` reports about the mapping itself."""

_NO_COUNTERPART = {
    "KMSKeyArn": "it encrypts the filter patterns inside Lambda; here they are in this file",
    "KmsKeyArn": "it encrypts the filter patterns inside Lambda; here they are in this file",
    "MetricsConfig": "metrics are always on, at /metrics",
    "Tags": "there is no AWS resource to tag; tag the deployment and the lease table",
    "ProvisionedPollerConfig": "for Kafka and SQS only; pollers are the workers you start",
    "ScalingConfig": "for SQS only; concurrency is workers, handler.processes and batch.parallelization_factor",
    "LoggingConfig": "for Kafka only; see logging",
    "SourceAccessConfigurations": "for Kafka and MQ only",
    "Topics": "for Kafka only",
    "Queues": "for MQ only",
    "SelfManagedEventSource": "self-managed Kafka is no change stream of DynamoDB",
    "AmazonManagedKafkaEventSourceConfig": "for Kafka only",
    "SelfManagedKafkaEventSourceConfig": "for Kafka only",
    "DocumentDBEventSourceConfig": "for DocumentDB only",
    "FilterCriteriaError": "Lambda could not decrypt or use the filters; look at FilterCriteria",
}


def variable_name(option: str) -> str:
    """`BATCH_SIZE` of `BatchSize`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", option).upper()


class Options:
    """The properties of one mapping. Values come as (value, comment) for the file; ``notes`` collects the rest."""

    def __init__(self, properties: Mapping[Any, Any]) -> None:
        self.notes: list[Note] = []
        self._properties = properties
        self._read: set[str] = set(_SAYS_NOTHING)

    def note(self, option: str, reason: str) -> None:
        """Something that still has to be looked at."""
        self.notes.append(Note(one_line(option), one_line(reason)))

    def get(self, option: str) -> Any:
        """The value of an option; ``UNSET`` when it is missing or null."""
        self._read.add(option)
        value = self._properties.get(option)
        return UNSET if value is None else value

    def is_set(self, option: str) -> bool:
        """Whether the mapping has a value for it."""
        return self._properties.get(option) is not None

    def peek(self, option: str, default: Any) -> Any:
        """The value of an option that another part of the file is about."""
        value = self._properties.get(option)
        return default if value is None else value

    def reference(self, option: str, value: object, hint: str = "") -> tuple[Any, str]:
        """A variable in place of a value that is not known; the daemon does not start without it."""
        variable = variable_name(option)
        self.note(option, f"{value} is not known from here: put the value in, or set {variable}{hint}")
        return Reference(f"${{{variable}}}"), f"{option}: {value}"

    def choose(
        self,
        option: str,
        default: Any,
        read: Callable[[Any], Any],
        wanted: str,
        because: str = "",
        hint: str = "",
    ) -> tuple[Any, str]:
        """Value and comment of an option. ``read`` returns ``UNSET`` for what Lambda would not have taken."""
        value = self.get(option)
        reason = f"; {because}" if because else ""
        if value is UNSET:
            return default, f"{option} is not set: Lambda's default{reason}"
        if isinstance(value, Unresolved):
            return self.reference(option, value, hint)
        taken = read(value)
        if taken is UNSET:
            self.note(option, f"must be {wanted}, found {show(value)}: Lambda's default is written")
            return default, f"{option} was no usable value: Lambda's default{reason}"
        return taken, f"{option}{reason}"

    def whole(self, option: str, default: int, low: int, high: int, because: str = "") -> tuple[Any, str]:
        """A whole number in its range."""
        return self.choose(option, default, whole_number(low, high), f"a whole number from {low} to {high}", because)

    def seconds(self, option: str, high: int) -> tuple[Any, str]:
        """Seconds as a duration of the configuration."""

        def read(value: Any) -> Any:
            seconds = whole_number(0, high)(value)
            return UNSET if seconds is UNSET else format_duration(seconds)

        return self.choose(option, "0s", read, f"a whole number from 0 to {high}", hint=", with its unit, such as 30s")

    def leftovers(self) -> None:
        """Note every option that was not read."""
        for option, value in self._properties.items():
            if option in self._read or value is None or value in ([], {}):
                continue
            reason = _NO_COUNTERPART.get(str(option), "not an option that is known here")
            self.note(str(option), reason)
