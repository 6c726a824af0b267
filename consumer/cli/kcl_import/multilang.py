"""The properties of a MultiLangDaemon as a configuration file.

What the KCL leaves at its default is written out where the default here would behave otherwise. Keys without a
counterpart are named with the reason, never dropped silently; a value that cannot be known, the code above all, becomes
a ``${VARIABLE}``, which the daemon refuses to start without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from consumer.cli.kcl_import.java_properties import Property
from consumer.cli.kcl_import.multilang_keys import reason_of
from consumer.cli.lambda_import.commented_yaml import Reference, Writer, one_line
from consumer.cli.lambda_import.found import Note
from consumer.cli.lambda_import.values import moment_text, show
from consumer.settings.aws_names import require_stream_arn, stream_region
from consumer.settings.errors import Refused
from consumer.settings.kinds import require_http_url
from consumer.settings.model import Poll
from consumer.settings.units import format_duration, parse_duration

_MAX_INT: Final = 2**31 - 1
_MAX_RECORDS: Final = {"kinesis": 10_000, "dynamodb": 1_000}  # of GetRecords
_APPLICATION = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_REGION = re.compile(r"[A-Za-z0-9-]{1,63}")
_DIGITS = re.compile(r"[0-9]{1,18}")
_STREAM = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_PYTHON = re.compile(r"python|.*\.py\b", re.IGNORECASE)
_POSITIONS: Final = {"TRIM_HORIZON": "trim_horizon", "LATEST": "latest"}
_RECOMMENDED: Final = (
    "Recommended once all runs as before: `order: key` with a higher factor, such as 8. Then a record that fails holds "
    "up the later records of its own key and nothing else."
)


def configuration_of(properties: Sequence[Property]) -> tuple[str, tuple[Note, ...]]:
    """The YAML file, and what still has to be looked at."""
    return _Configuration(properties).made()


class _Configuration:
    def __init__(self, properties: Sequence[Property]) -> None:
        # As the daemon's own setters take them: names of the credentials provider come in any case.
        self._values: Mapping[str, str] = {one.key.lower(): one.value.strip() for one in properties}
        self._names: Mapping[str, str] = {one.key.lower(): one.key for one in properties}
        self._read: set[str] = set()
        self._notes: list[Note] = []
        self._out = Writer()
        for key in sorted({one.key for one in properties}):
            lines = [one.line for one in properties if one.key == key]
            if len(lines) > 1:
                self._note(key, f"is there {len(lines)} times: the one in line {lines[-1]} counts")

    def made(self) -> tuple[str, tuple[Note, ...]]:
        self._application()
        kind, arn, name = self._stream()
        self._aws(kind, stream_region(arn))
        self._source(kind, arn, name)
        self._handler()
        self._batch()
        self._rest()
        self._leftovers()
        head = Writer()
        head.comment("Made by `stream-consumer import-kcl --properties`. Each comment names the key of that file.")
        if self._notes:
            head.comment("What does not carry over by itself:")
        for note in self._notes:
            head.comment(f"- {note}")
        return head.text() + self._out.text(), tuple(self._notes)

    # --- sections --------------------------------------------------------------------------------------

    def _application(self) -> None:
        key, name = "applicationName", self._get("applicationName")
        table = self._get("tableName") or self._get("leaseTableName") or name
        if _APPLICATION.fullmatch(name):
            self._out.value("application", name, f"{key}; names the leases, so keep it")
        else:
            found = f"{show(name)} cannot be one here" if name else "is missing"
            self._note(key, f"{found}: set APPLICATION to a name of letters, digits and _ . -")
            self._out.value("application", Reference("${APPLICATION}"), f"{key}; names the leases, so keep it")
        shown = table or "TABLE"
        self._note(
            self._named("tableName", "leaseTableName", key),
            f"the KCL's leases are in its table {shown}: when its fleet is stopped, `stream-consumer import-kcl FILE "
            f"--table {shown}` makes this application go on behind their checkpoints",
        )

    def _stream(self) -> tuple[str, str, str]:
        """Kind, ARN and name; of the last two one is empty, or both when it is not known."""
        arn, name = self._get("streamArn"), self._get("streamName")
        if arn and name and not arn.endswith(f"/{name}"):
            self._note("streamName", f"{show(name)} does not count beside streamArn")
        found = arn or name  # StreamsMultiLangDaemon of the DynamoDB adapter has an ARN as streamName
        kind = "dynamodb" if re.match(r"arn:[^:]+:dynamodb:", found) else "kinesis"
        if not found.startswith("arn:") and not arn:
            if name and not _STREAM.fullmatch(name):
                self._note("streamName", f"{show(name)} is no name of a stream: set STREAM_NAME")
                return kind, "", ""
            return kind, "", name
        try:
            require_stream_arn(found, kind)
        except Refused as error:
            self._note("streamArn" if arn else "streamName", f"{show(found)}: {error}; set STREAM_ARN")
            return kind, "${STREAM_ARN}", ""
        return kind, found, ""

    def _aws(self, kind: str, region_of_arn: str) -> None:
        region = self._get("regionName")
        if region and not _REGION.fullmatch(region):
            self._note("regionName", f"{show(region)} is no region: set AWS_REGION")
            region = ""
        if region_of_arn and region and region != region_of_arn:
            self._note("regionName", f"{region} does not count beside the region of the stream's ARN, {region_of_arn}")
        wanted, because = (region_of_arn, "streamArn") if region_of_arn else (region, "regionName")
        streams = "dynamodb_streams" if kind == "dynamodb" else "kinesis"
        keys = {streams: "kinesisEndpoint", "dynamodb": "dynamoDBEndpoint"}
        endpoints = {service: url for service, key in keys.items() if (url := self._url(key))}
        if wanted or endpoints:
            self._out.section("aws")
        if wanted:
            self._out.value("region", wanted, because)
        else:
            self._note("regionName", "is not set: set AWS_REGION, or aws.region")
        if endpoints:
            self._out.value("endpoints", endpoints, "kinesisEndpoint, dynamoDBEndpoint")
        other = self._get("dynamoDBRegionName")
        if other and other != wanted:
            self._note("dynamoDBRegionName", f"import-kcl reads the table there with --table-region {other}")

    def _source(self, kind: str, arn: str, name: str) -> None:
        key = "streamArn" if self._get("streamArn") else "streamName"
        self._out.top_level()
        self._out.section("source")
        self._out.value("kind", kind, key)
        if arn:
            self._out.value("stream_arn", Reference(arn) if arn.startswith("${") else arn, key)
        else:
            if not name and not self._get("streamName"):
                self._note("streamName", "is missing, and so is streamArn: set STREAM_NAME")
            self._out.value("stream", name or Reference("${STREAM_NAME}"), key)
        self._out.value("starting_position", *self._position())
        self._out.value(
            "on_gap", "continue", "as the KCL, which goes on after records were trimmed; `halt` waits for a decision"
        )
        poll: dict[str, Any] = {}
        most = _MAX_RECORDS[kind]
        records = self._whole("maxRecords", 1, _MAX_RECORDS["kinesis"])
        if records is not None:
            poll["max_records"] = min(records, most)
        pause = self._duration("idleTimeBetweenReadsInMillis", 0.2, 300)
        if pause is not None:
            poll["target_latency"] = pause
            if parse_duration(pause) > Poll().idle_backoff_max:
                poll["idle_backoff_max"] = pause
        if poll:
            self._out.value("poll", poll, "maxRecords; idleTimeBetweenReadsInMillis, here while records may come")

    def _position(self) -> tuple[Any, str]:
        key, extended = "initialPositionInStream", "initialPositionInStreamExtended"
        position, seconds = self._get(key).upper(), self._get(extended)
        counts = "counts only where import-kcl has written no checkpoints"
        if seconds:
            moment = moment_text(seconds)
            if position:
                self._note(key, f"does not count beside {extended}")
            if moment:
                return moment, f"{extended}; {counts}"
            self._note(extended, f"must be a time in seconds since 1970, found {show(seconds)}")
        if position in _POSITIONS:
            return _POSITIONS[position], f"{key}; {counts}"
        if position:
            self._note(key, f"{show(position)} needs a time: set STARTING_POSITION, such as 2026-01-31T12:00:00Z")
            return Reference("${STARTING_POSITION}"), f"{key}; {counts}"
        return "latest", f"{key} is not set: the KCL's default; {counts}"

    def _handler(self) -> None:
        executable, language = self._get("executableName"), self._get("processingLanguage")
        self._out.section("handler")
        is_python = bool(_PYTHON.match(language) or _PYTHON.match(executable))
        shown = executable or "it"
        if is_python:
            reason = (
                "the processor's process_records(records) becomes a function handle(records, context): name it in "
                "handler.target, or set HANDLER_TARGET"
            )
            self._out.value("kind", "python", "executableName, processingLanguage")
            self._out.value("target", Reference("${HANDLER_TARGET}"), "module:attribute of the new handler")
        else:
            reason = (
                "write the processor as a program that speaks the Lambda Runtime API, and set HANDLER_COMMAND to it, "
                "or as a service, with kind: http and its URL as target"
            )
            self._out.value("kind", "lambda", "executableName, processingLanguage")
            self._out.value("command", [Reference("${HANDLER_COMMAND}")], "a program with a Lambda runtime client")
        self._note(
            "executableName",
            f"{one_line(shown)} speaks the MultiLangDaemon's protocol over its standard input, which is not spoken "
            f"here: {reason}; it makes no checkpoints, for a record is settled when the handler returns",
        )
        timeout = self._whole("timeoutInSeconds", 1, 86_400)
        if timeout is not None:
            self._out.value("timeout", format_duration(timeout), "timeoutInSeconds")

    def _batch(self) -> None:
        self._out.section("batch")
        self._out.value(
            "parallelization_factor", 1, "as the KCL, which has one call at a time for a shard; 8 by default"
        )
        self._out.comment(_RECOMMENDED)
        self._out.value("order", "shard", "as the KCL; but a call that fails is tried again, and nothing overtakes it")

    def _rest(self) -> None:
        for section, name, found, comment in (
            ("leases", "duration", self._duration("failoverTimeMillis", 1, 300), "failoverTimeMillis"),
            ("limits", "max_shards", self._most_leases(), "maxLeasesForWorker"),
            ("shutdown", "grace", self._duration("shutdownGraceMillis", 0, 86_400), "shutdownGraceMillis"),
        ):
            if found is not None:
                self._out.section(section)
                self._out.value(name, found, comment)

    def _most_leases(self) -> int | None:
        most = self._whole("maxLeasesForWorker", 1, _MAX_INT)
        return None if most is None else most if most <= 100_000 else 0

    # --- values ----------------------------------------------------------------------------------------

    def _get(self, key: str) -> str:
        """A value; empty when it is missing."""
        self._read.add(key.lower())
        return self._values.get(key.lower(), "")

    def _whole(self, key: str, low: int, high: int) -> int | None:
        """A number; None when it is missing, or none that the KCL would have taken."""
        value = self._get(key)
        if not value:
            return None
        if not _DIGITS.fullmatch(value) or not low <= int(value) <= high:
            self._note(key, f"must be a whole number from {low} to {high}, found {show(value)}: left at the default")
            return None
        return int(value)

    def _duration(self, key: str, low: float, high: float) -> str | None:
        """Milliseconds as a duration of the configuration; the nearest one that it takes."""
        millis = self._whole(key, 0, _MAX_INT)
        if millis is None:
            return None
        seconds = min(max(millis / 1000, low), high)
        if seconds != millis / 1000:
            ends = f"{format_duration(low)} to {format_duration(high)}"
            self._note(key, f"{millis} ms is written as {format_duration(seconds)}: here it can be {ends}")
        return format_duration(seconds)

    def _url(self, key: str) -> str:
        value = self._get(key)
        if not value:
            return ""
        try:
            return require_http_url(value)
        except Refused:
            self._note(key, "is no http:// or https:// URL: set aws.endpoints if it is needed")
            return ""

    # --- notes -----------------------------------------------------------------------------------------

    def _named(self, *keys: str) -> str:
        """The first of the keys that is there, as the file spells it."""
        return next((self._names[key.lower()] for key in keys if key.lower() in self._values), keys[-1])

    def _note(self, key: str, reason: str) -> None:
        self._notes.append(Note(one_line(self._names.get(key.lower(), key)), one_line(reason)))

    def _leftovers(self) -> None:
        """Every key that was not read, with the reason. Their values are not shown: they may be secrets."""
        for key in self._names:
            if key not in self._read:
                self._note(key, reason_of(key))
