"""An existing Lambda event source mapping as a configuration file that behaves the same.

What Lambda leaves at its default is written out wherever the default here is another one, so that moving changes
nothing by itself. What has no counterpart is listed with its reason, never dropped silently; a value that cannot be
known (a CloudFormation function, the code behind a function ARN) becomes a `${VARIABLE}`, which the daemon refuses to
start without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from consumer.cli.lambda_import.application import application_names
from consumer.cli.lambda_import.commented_yaml import Reference, Writer
from consumer.cli.lambda_import.destination import write_on_failure
from consumer.cli.lambda_import.filters import write_filters
from consumer.cli.lambda_import.found import KINESIS, Found, Note
from consumer.cli.lambda_import.handler import write_handler
from consumer.cli.lambda_import.intrinsics import Unresolved, holds_unresolved
from consumer.cli.lambda_import.options import Options
from consumer.cli.lambda_import.source_kind import NO_FAN_OUT
from consumer.cli.lambda_import.values import UNSET, boolean, moment_text, record_age, show
from consumer.settings.aws_names import require_stream_arn, stream_region, without_consumer
from consumer.settings.errors import Refused

_HERE_TRUE = "here true would be the default"
_RECOMMENDED = (
    "Recommended once all runs as before: `order: key` with a higher factor, such as 8. Then a record that fails holds "
    "up the later records of its own key and nothing else; with `shard` all that is behind it waits, as in Lambda, "
    "until it is given up or has expired."
)
_CHANGES = (
    "changes that DynamoDB puts into this stream reach the handler as records of DynamoDB Streams, not as a text in "
    "base64 below kinesis.data; all other records as in Lambda"
)

_AGE = "-1 or a whole number from 60 to 604800"


@dataclass(frozen=True, slots=True)
class Imported:
    """``yaml`` is the configuration file; ``notes`` is what still has to be looked at."""

    yaml: str
    notes: tuple[Note, ...]


def import_mapping(found: Found, *, target: str | None = None, application: str | None = None) -> Imported:
    """Convert a mapping.

    Args:
        found: the mapping, and what its file says about its function.
        target: the code: Lambda's own `module.attribute`, `module:attribute`, or a URL. None: what the file says.
        application: what the application is called. None: as its function.
    """
    return _Import(found, target, application or application_names([found])[0]).run()


class _Import:
    def __init__(self, found: Found, target: str | None, application: str) -> None:
        self._found = found
        self._target = target
        self._application_name = application
        self._in = Options(found.properties)
        self._out = Writer()

    def run(self) -> Imported:
        self._application()
        self._source()
        write_handler(self._in, self._found.function, self._target, self._out)
        self._batch()
        write_filters(self._in, self._out)
        self._retry()
        write_on_failure(self._in, self._out)
        self._enabled()
        self._in.leftovers()
        notes = (*self._found.notes, *self._in.notes)
        return Imported(f"{_head(notes)}{self._out.text()}", notes)

    def _either(self, option: str, other: str) -> tuple[str, Any]:
        """The name and value of the first one that is set; of ``other`` when none is."""
        value, instead = self._in.get(option), self._in.get(other)
        return (other, instead) if value is UNSET else (option, value)

    # -- the sections, in the order of the file

    def _application(self) -> None:
        option, value = self._either("FunctionArn", "FunctionName")
        shown = f"{option} {value}" if value is not UNSET else "the function"
        self._out.value("application", self._application_name, f"after {shown}; names the leases, so keep it")
        function = self._found.function
        own = function.properties.get("FunctionName") if function else None
        if isinstance(own, Unresolved):
            reason = "set AWS_LAMBDA_FUNCTION_NAME if keys or tables are named after the function"
            self._in.note("FunctionName", f"{own} is not known from here: the application has another name; {reason}")

    def _source(self) -> None:
        option, value = self._either("EventSourceArn", "Stream")
        kinesis = self._found.source == KINESIS
        arn, comment = self._stream(option, value, "kinesis" if kinesis else "dynamodb")
        region = stream_region(arn)
        if region:
            self._out.section("aws")
            self._out.value("region", region, f"{option}: where the stream is")
        self._out.section("source")
        self._out.value("kind", "kinesis" if kinesis else "dynamodb", option)
        self._out.value("stream_arn", arn, comment)
        self._out.value("starting_position", *self._position())
        self._out.value(
            "on_gap", "continue", "as Lambda, which goes on after records were trimmed; `halt` waits for a decision"
        )
        if kinesis:
            self._out.value(
                "duplicates", "keep", "as Lambda, which shows all; `drop` skips changes that DynamoDB repeats"
            )
            self._in.note(option, _CHANGES)

    def _stream(self, option: str, value: Any, kind: str) -> tuple[str, str]:
        if isinstance(value, Unresolved):
            return self._in.reference(option, value, " to the ARN of the stream" if kind == "kinesis" else "")
        try:
            if not isinstance(value, str):
                raise Refused("no ARN of a stream is given")
            stream = without_consumer(value)
            require_stream_arn(stream, kind)
            if stream != value:
                self._in.note(option, f"{show(value)} is a consumer: {NO_FAN_OUT}")
                return stream, f"{option}: the stream of the consumer"
        except Refused as error:
            shown = "" if value is UNSET else f"{show(value)} "
            self._in.note(option, f"{shown}cannot be read from here: {error}; set EVENT_SOURCE_ARN")
            return Reference("${EVENT_SOURCE_ARN}"), f"{option} is no change stream"
        return value, option

    def _position(self) -> tuple[Any, str]:
        option, value = "StartingPosition", self._in.get("StartingPosition")
        moment = self._in.get("StartingPositionTimestamp")
        if isinstance(value, Unresolved):
            return self._in.reference(option, value, " to trim_horizon or latest")
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
        if value is UNSET or value == []:
            return False, f"{option} is not set: Lambda's default, answers are not looked at"
        types = value if isinstance(value, list) else [value]
        unknown = [one for one in types if one != "ReportBatchItemFailures"]
        if len(unknown) == len(types):  # false would ignore failures that the function may well name
            shown = ", ".join(str(one) if isinstance(one, Unresolved) else show(one) for one in unknown)
            return self._in.reference(option, shown, ": true for ReportBatchItemFailures, false without it")
        for one in unknown:
            if not holds_unresolved(one):
                self._in.note(option, f"{show(one)} is not known")
        return True, option

    def _retry(self) -> None:
        self._out.section("retry")
        self._out.value("max_retry_attempts", *self._in.whole("MaximumRetryAttempts", -1, -1, 10_000))
        self._out.value(
            "max_record_age",
            *self._in.choose("MaximumRecordAgeInSeconds", -1, record_age, _AGE, hint=", with its unit, such as 24h"),
        )
        self._out.value(
            "bisect_on_error",
            *self._in.choose("BisectBatchOnFunctionError", False, boolean, "true or false", _HERE_TRUE),
        )

    def _enabled(self) -> None:
        enabled, state = self._in.get("Enabled"), self._in.get("State")
        if isinstance(enabled, Unresolved):
            self._in.note("Enabled", f"{enabled}: there is no paused state here; the daemon reads while it runs")
        elif boolean(enabled) is False or state in ("Disabled", "Disabling"):
            option = "Enabled" if enabled is not UNSET else "State"
            self._in.note(option, "the mapping is disabled, but a daemon that runs reads: start it only when it may")


def _head(notes: tuple[Note, ...]) -> str:
    out = Writer()
    out.comment("Made by `stream-consumer import-esm`. Each comment names the option of the mapping.")
    if notes:
        out.comment("What does not carry over by itself:")
    for note in notes:
        out.comment(f"- {note}")
    return out.text()
