"""An existing Lambda event source mapping as a configuration file that behaves the same.

What Lambda leaves at its default is written out wherever the default here is another one, so that moving changes
nothing by itself. What has no counterpart is listed with its reason, never dropped silently; a value that cannot be
known (a CloudFormation function, the code behind a function ARN) becomes a `${VARIABLE}`, which the daemon refuses to
start without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.cli.lambda_import.commented_yaml import Reference, Writer
from consumer.cli.lambda_import.document import Found, Unresolved, find
from consumer.cli.lambda_import.options import Note, Options
from consumer.cli.lambda_import.values import (
    UNSET,
    boolean,
    bucket_url,
    holds_unresolved,
    json_object,
    module_and_attribute,
    moment_text,
    record_age,
    show,
    whole_number,
)
from consumer.settings.aws_names import require_stream_arn, service_of_destination, stream_region
from consumer.settings.errors import Refused
from consumer.settings.units import format_duration

_ARN_NAME = re.compile(r"arn:[^:]*:lambda:[^:]*:[^:]*:function:([^:]+)(?::[^:]+)?")
_MAX_FUNCTION_SECONDS = 900
_HERE_TRUE = "here true would be the default"
_RECOMMENDED = (
    "Recommended once all runs as before: `order: key` with a higher factor, such as 8. Then a record that fails holds "
    "up the later records of its own key and nothing else; with `shard` all that is behind it waits, as in Lambda, "
    "until it is given up or has expired."
)


@dataclass(frozen=True, slots=True)
class Imported:
    """``yaml`` is the configuration file; ``notes`` is what still has to be looked at."""

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
        self._found = found
        self._target = target
        self._in = Options(found.properties)
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
        self._in.leftovers()
        return Imported(self._out.text(), tuple(self._in.notes))

    def _either(self, option: str, other: str) -> tuple[str, Any]:
        """The name and value of the first one that is set; of ``other`` when none is."""
        value, instead = self._in.get(option), self._in.get(other)
        return (other, instead) if value is UNSET else (option, value)

    # -- the sections, in the order of the file

    def _application(self) -> None:
        option, value = self._either("FunctionArn", "FunctionName")
        name = ""
        if isinstance(value, Unresolved):
            name = value.logical_name
        elif isinstance(value, str):
            arn = _ARN_NAME.fullmatch(value)
            name = arn[1] if arn else value.rpartition("function:")[2].partition(":")[0]
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name or self._found.function_name).strip("-._")[:128]
        shown = f"{option} {value}" if value is not UNSET else "the function"
        self._out.value("application", name or "imported", f"after {shown}; names the leases, so keep it")

    def _source(self) -> None:
        option, value = self._either("EventSourceArn", "Stream")
        kind, arn, comment = self._stream(option, value)
        region = stream_region(arn)
        if region:
            self._out.section("aws")
            self._out.value("region", region, f"{option}: where the stream is")
        self._out.section("source")
        self._out.value("kind", kind, option)
        self._out.value("stream_arn", arn, comment)
        self._out.value("starting_position", *self._position())
        self._out.value(
            "on_gap", "continue", "as Lambda, which goes on after records were trimmed; `halt` waits for a decision"
        )

    def _stream(self, option: str, value: Any) -> tuple[str, str, str]:
        if isinstance(value, Unresolved):
            arn, comment = self._in.reference(option, value)
            return "dynamodb", arn, comment
        kind = "kinesis" if isinstance(value, str) and ":kinesis:" in value else "dynamodb"
        try:
            if not isinstance(value, str):
                raise Refused("no ARN of a stream is given")
            require_stream_arn(value, kind)
        except Refused as error:
            shown = "" if value is UNSET else f"{show(value)} "
            self._in.note(option, f"{shown}cannot be read from here: {error}; set EVENT_SOURCE_ARN")
            return "dynamodb", Reference("${EVENT_SOURCE_ARN}"), f"{option} is no change stream"
        if kind == "kinesis":
            self._in.note(option, "a Kinesis source; `check-config` says whether this version reads it")
            if "/consumer/" in value:
                self._in.note(option, "enhanced fan-out does not carry over: the stream is polled")
                return kind, value.partition("/consumer/")[0], f"{option}, without its enhanced fan-out consumer"
        return kind, value, option

    def _position(self) -> tuple[Any, str]:
        option, value = "StartingPosition", self._in.get("StartingPosition")
        moment = self._in.get("StartingPositionTimestamp")
        if isinstance(value, Unresolved):
            return self._in.reference(option, value)
        if isinstance(moment, Unresolved):
            return self._in.reference("StartingPositionTimestamp", moment)
        if value == "AT_TIMESTAMP":
            text = moment_text(moment)
            if text:
                return text, "StartingPosition AT_TIMESTAMP and StartingPositionTimestamp"
            self._in.note("StartingPositionTimestamp", f"must be a time, found {show(moment)}: trim_horizon is written")
            return "trim_horizon", "StartingPositionTimestamp was no usable time"
        self._in.note(
            option,
            "Lambda does not tell how far it came: a fresh start repeats or misses records, unless starting_position "
            "is the time at which the mapping is disabled",
        )
        if value in ("TRIM_HORIZON", "LATEST"):
            return str(value).lower(), "StartingPosition; counts for the first start only"
        if value is not UNSET:
            self._in.note(option, f"must be TRIM_HORIZON, LATEST or AT_TIMESTAMP, found {show(value)}")
        return "trim_horizon", "StartingPosition is not known: nothing is missed so"

    def _handler(self) -> None:
        self._out.section("handler")
        target, comment = self._code()
        behind_url = "://" in target or self._is_foreign()
        if behind_url:
            self._out.value("kind", "http", "events are POSTed, for example to the function's container image")
        else:
            self._out.value("kind", "lambda", "the function's code runs as it is")
        self._out.value("target", target, comment)
        self._out.value("timeout", *self._timeout())
        if not behind_url:
            factor = whole_number(1, 10)(self._found.properties.get("ParallelizationFactor", 1))
            processes = max(2, factor) if isinstance(factor, int) else 10
            text = "Lambda starts as many as it needs, up to shards x ParallelizationFactor; here it is per worker"
            self._out.value("processes", processes, text)
        variables = self._found.function.get("Environment")
        names = variables.get("Variables") if isinstance(variables, Mapping) else None
        if isinstance(variables, Unresolved):
            names = variables
        if names:
            listed = ", ".join(map(str, names)) if isinstance(names, Mapping) else str(names)
            self._in.note("Environment", f"the function's variables are the daemon's to set: {listed}")

    def _is_foreign(self) -> bool:
        """The template says that the code is no Python, and no other code is named."""
        runtime, package = self._found.function.get("Runtime"), self._found.function.get("PackageType")
        known = isinstance(runtime, str) and not runtime.startswith("python")
        return not self._target and (known or package == "Image")

    def _code(self) -> tuple[str, str]:
        written = self._found.function.get("Handler")
        if self._target:
            return module_and_attribute(self._target), "--target"
        if self._is_foreign():
            option = "PackageType" if self._found.function.get("PackageType") == "Image" else "Runtime"
            self._in.note(
                option,
                f"{self._found.function.get(option)} runs behind kind: http: start the function's container image and "
                "set HANDLER_TARGET to its URL",
            )
            return Reference("${HANDLER_TARGET}"), "the URL of the function's container"
        if isinstance(written, str) and (target := module_and_attribute(written)) != written:
            self._in.note("Handler", f"{target} is imported from handler.path, by default the folder of the file")
            return target, f"the function's Handler, {written}"
        self._in.note(
            "FunctionArn" if "FunctionArn" in self._found.properties else "FunctionName",
            "a function is run from its code: put module:attribute into handler.target, or set HANDLER_TARGET",
        )
        return Reference("${HANDLER_TARGET}"), "module:attribute of the function's code, or the URL of its container"

    def _timeout(self) -> tuple[Any, str]:
        value = self._found.function.get("Timeout")
        seconds = whole_number(1, _MAX_FUNCTION_SECONDS)(value)
        if isinstance(seconds, int):
            return format_duration(seconds), "the function's Timeout"
        self._in.note("Timeout", "belongs to the function, not to the mapping: copy it to handler.timeout")
        return "60s", "put the function's Timeout here (Lambda's default is 3 seconds)"

    def _batch(self) -> None:
        self._out.section("batch")
        self._out.value("batch_size", *self._in.whole("BatchSize", 100, 1, 10_000))
        self._out.value("batching_window", *self._in.seconds("MaximumBatchingWindowInSeconds", 300))
        factor, comment = self._in.whole("ParallelizationFactor", 1, 1, 10, "here 8 would be the default")
        window, of_window = self._in.seconds("TumblingWindowInSeconds", 900)
        self._out.value("parallelization_factor", factor, comment)
        if factor == 1 and window == "0s":  # a window always has the order of its shard
            self._out.comment(_RECOMMENDED)
        self._out.value("order", *self._order(factor))
        self._out.value("report_batch_item_failures", *self._report())
        self._out.value("tumbling_window", window, of_window)

    def _order(self, factor: Any) -> tuple[Any, str]:
        option = "ParallelizationFactor"
        if isinstance(factor, Reference):
            self._in.note(option, "batch.order follows from it: set BATCH_ORDER to shard for 1, to key above")
            return Reference("${BATCH_ORDER}"), f"{option}: shard for 1, key above"
        if factor == 1:
            return "shard", f"{option} 1: nothing of a shard overtakes a batch that fails"
        return "key", f"{option} above 1: a key that fails does not hold up the others"

    def _report(self) -> tuple[Any, str]:
        option = "FunctionResponseTypes"
        value = self._in.get(option)
        if isinstance(value, Unresolved):
            return self._in.reference(option, value)
        if value is UNSET or value == []:
            return False, f"{option} is not set: Lambda's default; {_HERE_TRUE}"
        types = value if isinstance(value, list) else [value]
        for unknown in [one for one in types if one != "ReportBatchItemFailures"]:
            self._in.note(option, f"{show(unknown)} is not known")
        return "ReportBatchItemFailures" in types, option

    def _filters(self) -> None:
        patterns = list(self._patterns())
        if patterns:
            self._out.section("filters")
            for place, pattern in patterns:
                self._out.item(pattern, place)

    def _patterns(self) -> Iterator[tuple[str, Any]]:
        option = "FilterCriteria"
        criteria = self._in.get(option)
        filters = criteria.get("Filters") if isinstance(criteria, Mapping) else criteria
        if isinstance(criteria, Unresolved):
            self._in.note(option, f"{criteria} has no value in a template: put the patterns under filters")
        elif filters not in (UNSET, None) and not isinstance(filters, list):
            self._in.note(option, f"Filters must be a list, found {show(filters)}: no filter is written")
        for index, entry in enumerate(filters if isinstance(filters, list) else []):
            place = f"{option}.Filters[{index}].Pattern"
            pattern = entry.get("Pattern") if isinstance(entry, Mapping) else entry
            if isinstance(pattern, str):
                pattern = json_object(pattern)
            if isinstance(pattern, Mapping) and not holds_unresolved(pattern):
                yield place, pattern
            else:
                shown = "it depends on a template" if holds_unresolved(pattern) else "it is no JSON object"
                self._in.note(place, f"{shown}: left out: filters are not complete until you add it")

    def _retry(self) -> None:
        self._out.section("retry")
        self._out.value("max_retry_attempts", *self._in.whole("MaximumRetryAttempts", -1, -1, 10_000))
        self._out.value(
            "max_record_age",
            *self._in.choose("MaximumRecordAgeInSeconds", -1, record_age, "-1 or a whole number from 60 to 604800"),
        )
        self._out.value(
            "bisect_on_error",
            *self._in.choose("BisectBatchOnFunctionError", False, boolean, "true or false", _HERE_TRUE),
        )

    def _on_failure(self) -> None:
        option = "DestinationConfig"
        config = self._in.get(option)
        if isinstance(config, Mapping):
            for name, value in config.items():
                if name != "OnFailure" and value:
                    self._in.note(f"{option}.{name}", "Lambda does not offer it for streams either")
            self._destination(f"{option}.OnFailure", config.get("OnFailure"))
        elif isinstance(config, Unresolved):
            self._in.note(option, f"{config} has no value in a template: put the destination under on_failure")
        elif config is not UNSET:
            self._in.note(option, f"must be an object, found {show(config)}")

    def _destination(self, option: str, value: Any) -> None:
        name = value.get("Destination") if isinstance(value, Mapping) else value
        if isinstance(name, Unresolved):
            shown, comment = self._in.reference("OnFailureDestination", name)
        elif isinstance(name, str):
            shown, comment = bucket_url(name), f"{option}.Destination"
            try:
                service_of_destination(shown)
            except Refused as error:
                self._in.note(f"{option}.Destination", f"{show(name)} {error}: no destination is written")
                return
        else:
            if value:
                self._in.note(option, "names no Destination (SAM makes a queue then): put its ARN under on_failure")
            return
        self._out.section("on_failure")
        self._out.value("destination", shown, comment)
        if shown.startswith("s3://"):
            self._out.value("format", "lambda", "objects as Lambda writes them; `full` has the error, too")
        else:
            self._out.value("format", "full", "Lambda's fields and, beyond them, the records themselves")
        self._out.value("order", "continue", "as Lambda: later records of the same key go on")

    def _enabled(self) -> None:
        enabled, state = self._in.get("Enabled"), self._in.get("State")
        if isinstance(enabled, Unresolved):
            self._in.note("Enabled", f"{enabled}: there is no paused state here; the daemon reads while it runs")
        elif boolean(enabled) is False or state in ("Disabled", "Disabling"):
            option = "Enabled" if enabled is not UNSET else "State"
            self._in.note(option, "the mapping is disabled, but a daemon that runs reads: start it only when it may")
