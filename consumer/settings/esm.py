"""An existing Lambda event source mapping as a configuration file of ours that behaves the same.

What Lambda leaves at its default is written out wherever our default is another one, so that moving changes nothing
by itself. What has no counterpart is listed with its reason, never dropped silently; a value that cannot be known
(a CloudFormation function, the code behind a function ARN) becomes a `${VARIABLE}`, which the daemon refuses to start
without.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer.settings.arns import NameRefused, require_stream_arn, service_of_destination, stream_region
from consumer.settings.esm_document import Found, NotAMapping, Unresolved, find
from consumer.settings.esm_yaml import Reference, Writer, one_line
from consumer.settings.units import format_duration

__all__ = ["Imported", "NotAMapping", "Note", "import_mapping"]

_UNSET = object()
_ARN_NAME = re.compile(r"arn:[^:]*:lambda:[^:]*:[^:]*:function:([^:]+)(?::[^:]+)?")
_MAX_FUNCTION_SECONDS = 900

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


@dataclass(frozen=True, slots=True)
class Note:
    """Something that does not carry over by itself: the option of the mapping, and why or what to do."""

    option: str
    reason: str

    def __str__(self) -> str:
        return f"{self.option}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Imported:
    """``yaml`` is the configuration file; ``notes`` is what somebody still has to look at."""

    yaml: str
    notes: tuple[Note, ...]


def import_mapping(document: Mapping[Any, Any], *, target: str | None = None) -> Imported:
    """Convert a mapping.

    Args:
        document: `aws lambda get-event-source-mapping` output, the properties or the whole of an
            `AWS::Lambda::EventSourceMapping` or SAM event, or a template that holds exactly one of these.
        target: the code: `module:attribute`, Lambda's own `module.attribute`, or a URL.

    Raises:
        NotAMapping: the document holds no mapping, or several.
    """
    return _Import(find(document), target).run()


class _Import:
    def __init__(self, found: Found, target: str | None) -> None:
        self._properties = found.properties
        self._found = found
        self._target = target
        self._read: set[str] = set(_SAYS_NOTHING)
        self._notes: list[Note] = []
        self._out = Writer()

    def run(self) -> Imported:
        self._out.comment("Made by `stream-consumer import-esm`. Each comment names the option of the mapping.")
        self._application()
        self._source()
        self._handler()
        self._batch()
        self._filters()
        self._retry()
        self._on_failure()
        self._enabled()
        self._leftovers()
        return Imported(self._out.text(), tuple(self._notes))

    # -- reading

    def _note(self, option: str, reason: str) -> None:
        self._notes.append(Note(one_line(option), one_line(reason)))

    def _get(self, option: str) -> Any:
        """The value of an option; ``_UNSET`` when it is missing or null."""
        self._read.add(option)
        value = self._properties.get(option)
        return _UNSET if value is None else value

    def _reference(self, option: str, value: Unresolved) -> tuple[Any, str]:
        """A variable in place of a value that only a deployment knows."""
        variable = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", option).upper()
        self._note(option, f"{value} has no value in a template: put it in, or set {variable}")
        return Reference(f"${{{variable}}}"), f"{option}: {value}"

    def _choose(
        self, option: str, default: Any, read: Callable[[Any], Any], wanted: str, because: str = ""
    ) -> tuple[Any, str]:
        """Value and comment of an option. ``read`` returns ``_UNSET`` for what Lambda would not have taken."""
        value = self._get(option)
        reason = f"; {because}" if because else ""
        if value is _UNSET:
            return default, f"{option} is not set: Lambda's default{reason}"
        if isinstance(value, Unresolved):
            return self._reference(option, value)
        taken = read(value)
        if taken is _UNSET:
            self._note(option, f"must be {wanted}, found {_shown(value)}: Lambda's default is written")
            return default, f"{option} was no usable value: Lambda's default{reason}"
        return taken, f"{option}{reason}"

    def _whole(self, option: str, default: int, low: int, high: int, because: str = "") -> tuple[Any, str]:
        return self._choose(option, default, _whole(low, high), f"a whole number from {low} to {high}", because)

    def _seconds(self, option: str, high: int) -> tuple[Any, str]:
        def read(value: Any) -> Any:
            seconds = _whole(0, high)(value)
            return _UNSET if seconds is _UNSET else format_duration(seconds)

        return self._choose(option, "0s", read, f"a whole number from 0 to {high}")

    def _flag(self, option: str, because: str) -> tuple[Any, str]:
        return self._choose(option, False, _flag, "true or false", because)

    # -- the sections, in the order of the file

    def _application(self) -> None:
        option, value = next(
            ((name, value) for name in ("FunctionArn", "FunctionName") if (value := self._get(name)) is not _UNSET),
            ("FunctionName", _UNSET),
        )
        self._get("FunctionName")
        name = ""
        if isinstance(value, Unresolved):
            name = value.argument.partition(".")[0]
        elif isinstance(value, str):
            arn = _ARN_NAME.fullmatch(value)
            name = arn[1] if arn else value.rpartition("function:")[2].partition(":")[0]
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name or self._found.function_name).strip("-._")[:128]
        shown = f"{option} {value}" if value is not _UNSET else "the function"
        self._out.value("application", name or "imported", f"after {shown}; names the leases, so keep it")

    def _source(self) -> None:
        option = "Stream" if self._properties.get("EventSourceArn") is None else "EventSourceArn"
        value = self._get(option)
        self._get("EventSourceArn" if option == "Stream" else "Stream")
        kind, arn, comment = self._stream(option, value)
        region = stream_region(arn)
        if region:
            self._out.section("aws")
            self._out.value("region", region, f"{option}: where the stream is")
            self._out.top()
        self._out.section("source")
        self._out.value("kind", kind, option)
        self._out.value("stream_arn", arn, comment)
        position, comment = self._position()
        self._out.value("starting_position", position, comment)
        self._out.value(
            "on_gap", "continue", "as Lambda, which goes on after records were trimmed; `halt` lets somebody decide"
        )
        self._out.top()

    def _stream(self, option: str, value: Any) -> tuple[str, str, str]:
        if isinstance(value, Unresolved):
            arn, comment = self._reference(option, value)
            return "dynamodb", arn, comment
        kind = "kinesis" if isinstance(value, str) and ":kinesis:" in value else "dynamodb"
        try:
            if not isinstance(value, str):
                raise NameRefused("no ARN of a stream is given")
            require_stream_arn(value, kind)
        except NameRefused as error:
            hint = f" ({error.hint})" if error.hint else ""
            shown = "" if value is _UNSET else f"{_shown(value)} "
            self._note(option, f"{shown}cannot be read from here: {error.message}{hint}; set EVENT_SOURCE_ARN")
            return "dynamodb", Reference("${EVENT_SOURCE_ARN}"), f"{option} is no change stream"
        if kind == "kinesis":
            self._note(option, "a Kinesis source; `check-config` says whether this version reads it")
            if "/consumer/" in value:
                self._note(option, "enhanced fan-out does not carry over: the stream is polled")
                return kind, value.partition("/consumer/")[0], f"{option}, without its enhanced fan-out consumer"
        return kind, value, option

    def _position(self) -> tuple[Any, str]:
        option, value = "StartingPosition", self._get("StartingPosition")
        moment = self._get("StartingPositionTimestamp")
        if isinstance(value, Unresolved):
            return self._reference(option, value)
        if isinstance(moment, Unresolved):
            return self._reference("StartingPositionTimestamp", moment)
        if value == "AT_TIMESTAMP":
            text = _moment(moment)
            if text:
                return text, "StartingPosition AT_TIMESTAMP and StartingPositionTimestamp"
            self._note("StartingPositionTimestamp", f"must be a time, found {_shown(moment)}: trim_horizon is written")
            return "trim_horizon", "StartingPositionTimestamp was no usable time"
        self._note(
            option,
            "Lambda does not tell how far it came: a fresh start repeats or misses records, unless starting_position "
            "is the time at which the mapping is disabled",
        )
        if value in ("TRIM_HORIZON", "LATEST"):
            return str(value).lower(), "StartingPosition; counts for the first start only"
        if value is not _UNSET:
            self._note(option, f"must be TRIM_HORIZON, LATEST or AT_TIMESTAMP, found {_shown(value)}")
        return "trim_horizon", "StartingPosition is not known: nothing is missed so"

    def _handler(self) -> None:
        self._out.section("handler")
        target, comment = self._code()
        if "://" in target:
            self._out.value("kind", "http", "events are POSTed, for example to the function's container image")
        else:
            self._out.value("kind", "lambda", "the function's code runs as it is")
        self._out.value("target", target, comment)
        timeout, comment = self._timeout()
        self._out.value("timeout", timeout, comment)
        factor = _whole(1, 10)(self._properties.get("ParallelizationFactor", 1))
        processes = max(2, factor) if isinstance(factor, int) else 10
        text = "Lambda starts as many as it needs, up to shards x ParallelizationFactor; here it is per worker"
        self._out.value("processes", processes, text)
        self._out.top()

    def _code(self) -> tuple[str, str]:
        written = self._found.function.get("Handler")
        if self._target:
            return _module_and_attribute(self._target), "--target"
        if isinstance(written, str) and (target := _module_and_attribute(written)) != written:
            self._note("Handler", f"{target} is imported from handler.path, by default the folder of the file")
            return target, f"the function's Handler, {written}"
        self._note(
            "FunctionArn" if "FunctionArn" in self._properties else "FunctionName",
            "a function is run from its code: put module:attribute into handler.target, or set HANDLER_TARGET",
        )
        return Reference("${HANDLER_TARGET}"), "module:attribute of the function's code, or the URL of its container"

    def _timeout(self) -> tuple[Any, str]:
        value = self._found.function.get("Timeout")
        seconds = _whole(1, _MAX_FUNCTION_SECONDS)(value)
        if isinstance(seconds, int):
            return format_duration(seconds), "the function's Timeout"
        self._note("Timeout", "belongs to the function, not to the mapping: copy it to handler.timeout")
        return "60s", "put the function's Timeout here (Lambda's default is 3 seconds)"

    def _batch(self) -> None:
        self._out.section("batch")
        self._out.value("batch_size", *self._whole("BatchSize", 100, 1, 10_000))
        self._out.value("batching_window", *self._seconds("MaximumBatchingWindowInSeconds", 300))
        self._out.value(
            "parallelization_factor", *self._whole("ParallelizationFactor", 1, 1, 10, "here 8 would be the default")
        )
        self._out.value("report_batch_item_failures", *self._report())
        self._out.value("tumbling_window", *self._seconds("TumblingWindowInSeconds", 900))
        self._out.top()

    def _report(self) -> tuple[Any, str]:
        option = "FunctionResponseTypes"
        value = self._get(option)
        reason = "here true would be the default"
        if isinstance(value, Unresolved):
            return self._reference(option, value)
        if value is _UNSET or value == []:
            return False, f"{option} is not set: Lambda's default; {reason}"
        types = value if isinstance(value, list) else [value]
        for unknown in [one for one in types if one != "ReportBatchItemFailures"]:
            self._note(option, f"{_shown(unknown)} is not known")
        return "ReportBatchItemFailures" in types, option

    def _filters(self) -> None:
        option = "FilterCriteria"
        criteria = self._get(option)
        patterns: list[tuple[str, Any]] = []
        if isinstance(criteria, Unresolved):
            self._note(option, f"{criteria} has no value in a template: put the patterns under filters")
        elif criteria is not _UNSET:
            filters = criteria.get("Filters") if isinstance(criteria, Mapping) else criteria
            patterns = list(self._patterns(filters))
        if patterns:
            self._out.section("filters")
            for place, pattern in patterns:
                self._out.item(pattern, place)
            self._out.top()

    def _patterns(self, filters: Any) -> Iterator[tuple[str, Any]]:
        if filters is not None and not isinstance(filters, list):
            self._note("FilterCriteria", f"Filters must be a list, found {_shown(filters)}: no filter is written")
            return
        for index, entry in enumerate(filters or []):
            place = f"FilterCriteria.Filters[{index}].Pattern"
            pattern = entry.get("Pattern") if isinstance(entry, Mapping) else entry
            if isinstance(pattern, str):
                pattern = _json_object(pattern)
            if isinstance(pattern, Mapping) and not _holds_unresolved(pattern):
                yield place, pattern
            else:
                shown = "it depends on a template" if _holds_unresolved(pattern) else "it is no JSON object"
                self._note(place, f"{shown}: left out: filters are not complete until you add it")

    def _retry(self) -> None:
        self._out.section("retry")
        self._out.value("max_retry_attempts", *self._whole("MaximumRetryAttempts", -1, -1, 10_000))
        self._out.value(
            "max_record_age",
            *self._choose("MaximumRecordAgeInSeconds", -1, _record_age, "-1 or a whole number from 60 to 604800"),
        )
        bisect = self._flag("BisectBatchOnFunctionError", "here true would be the default")
        self._out.value("bisect_on_error", *bisect)
        self._out.top()

    def _on_failure(self) -> None:
        option = "DestinationConfig"
        config = self._get(option)
        if isinstance(config, Unresolved):
            self._note(option, f"{config} has no value in a template: put the destination under on_failure")
            return
        if config is _UNSET:
            return
        if not isinstance(config, Mapping):
            self._note(option, f"must be an object, found {_shown(config)}")
            return
        for name, value in config.items():
            if name != "OnFailure" and value:
                self._note(f"{option}.{name}", "Lambda does not offer it for streams either")
        self._destination(f"{option}.OnFailure", config.get("OnFailure"))

    def _destination(self, option: str, value: Any) -> None:
        name = value.get("Destination") if isinstance(value, Mapping) else value
        if isinstance(name, Unresolved):
            shown, comment = self._reference("OnFailureDestination", name)
        elif isinstance(name, str):
            shown, comment = _bucket_url(name), f"{option}.Destination"
            try:
                service_of_destination(shown)
            except NameRefused as error:
                hint = f" ({error.hint})" if error.hint else ""
                self._note(f"{option}.Destination", f"{_shown(name)} {error.message}{hint}: no destination is written")
                return
        else:
            if value:
                self._note(option, "names no Destination (SAM makes a queue then): put its ARN under on_failure")
            return
        self._out.section("on_failure")
        self._out.value("destination", shown, comment)
        self._out.value("order", "continue", "as Lambda: later records of the same key go on")
        self._out.top()

    def _enabled(self) -> None:
        enabled, state = self._get("Enabled"), self._get("State")
        if isinstance(enabled, Unresolved):
            self._note("Enabled", f"{enabled}: there is no paused state here; the daemon reads while it runs")
        elif _flag(enabled) is False or state in ("Disabled", "Disabling"):
            option = "Enabled" if enabled is not _UNSET else "State"
            self._note(option, "the mapping is disabled, but a daemon that runs reads: start it only when it may")

    def _leftovers(self) -> None:
        for option, value in self._properties.items():
            if option in self._read or value is None or value in ([], {}):
                continue
            reason = _NO_COUNTERPART.get(str(option), "not an option that is known here")
            self._note(str(option), reason)


def _shown(value: Any) -> str:
    text = "nothing" if value is _UNSET else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole(low: int, high: int) -> Callable[[Any], Any]:
    """Templates also write numbers as text."""

    def read(value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        usable = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if usable else _UNSET

    return read


def _flag(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value if isinstance(value, bool) else _UNSET


def _record_age(value: Any) -> Any:
    seconds = _whole(-1, 604_800)(value)
    if seconds is _UNSET or 0 <= seconds < 60:
        return _UNSET
    return -1 if seconds == -1 else format_duration(seconds)


def _moment(value: Any) -> str:
    """A time as the CLI or a template writes it (text or Unix seconds), in UTC; empty when it is none."""
    try:
        if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?(E[0-9]+)?", value.strip()):
            value = float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            value = datetime.fromtimestamp(value, UTC)
        elif isinstance(value, str):
            value = datetime.fromisoformat(value.strip())
        if not isinstance(value, datetime):
            return ""
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def _module_and_attribute(text: str) -> str:
    """Lambda's `app.handler` as `app:handler`; anything else as it is."""
    dotted = re.fullmatch(r"([A-Za-z_][\w./]*)\.([A-Za-z_]\w*)", text)
    return f"{dotted[1].replace('/', '.')}:{dotted[2]}" if dotted else text


def _bucket_url(name: str) -> str:
    bucket = re.fullmatch(r"arn:[^:]+:s3:::([^\s]+)", name)
    return f"s3://{bucket[1]}" if bucket else name


def _json_object(text: str) -> Any:
    """The pattern; None when it is no JSON object. Of repeated keys the last one counts, as in Lambda."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        pattern = json.loads(text, parse_constant=refuse)
        text.encode("utf-8")
        json.dumps(pattern, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):  # UnicodeEncodeError too: a lone surrogate matches nothing
        return None
    return pattern if isinstance(pattern, dict) else None


def _holds_unresolved(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_unresolved, value.values()))
    if isinstance(value, list):
        return any(map(_holds_unresolved, value))
    return isinstance(value, Unresolved)
