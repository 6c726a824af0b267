"""Rules about what is read: a table's own stream, or a stream of Kinesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from consumer.settings.aws_names import arn_place, require_stream_arn, stream_region
from consumer.settings.errors import Refused
from consumer.settings.model import Poll, Settings
from consumer.settings.rule import Rule, Violation
from consumer.settings.units import format_duration

_DYNAMODB_PAGE: Final = 1000  # records; GetRecords of DynamoDB Streams gives no more
_DYNAMODB_RETENTION: Final = 86400.0  # seconds; that of a Kinesis stream is its own setting


def _one_source(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if source.kind == "kinesis":
        yield from _one_stream(settings)
        return
    if source.stream is not None:
        yield Violation(
            "source.stream", "is for kind kinesis, found kind dynamodb", "set kind: kinesis, or use table: NAME"
        )
    if source.table is not None and source.stream_arn is not None:
        yield Violation("source.stream_arn", "cannot be given together with source.table", "keep one of them")
    if source.table is None and source.stream_arn is None and source.stream is None:
        yield Violation("source", "must have table or stream_arn", "table: NAME reads the table's latest stream")


def _one_stream(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if source.stream is not None and source.stream_arn is not None:
        yield Violation("source.stream_arn", "cannot be given together with source.stream", "keep one of them")
    if source.stream is None and source.stream_arn is None:
        hint = "table only picks the changes of one table out of it" if source.table else "stream: NAME of the stream"
        yield Violation("source", "must have stream or stream_arn for kind kinesis", hint)


def _stream_arn(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if source.stream_arn is not None:
        try:
            require_stream_arn(source.stream_arn, source.kind)
        except Refused as error:
            yield Violation("source.stream_arn", error.message, error.hint)


def _has_endpoint(settings: Settings) -> bool:
    """Emulators take any region and account, so rules about these rest when an endpoint is configured."""
    endpoints = settings.aws.endpoints
    return bool(endpoints.dynamodb or endpoints.dynamodb_streams or endpoints.kinesis)


def _region(settings: Settings) -> Iterator[Violation]:
    wanted = settings.aws.region
    if wanted is None or _has_endpoint(settings):
        return
    for path, name in (("source.stream_arn", settings.source.stream_arn), ("source.table", settings.source.table)):
        region = stream_region(name or "")
        if region and region != wanted:
            yield Violation(path, f"is in region {region}, but aws.region is {wanted}", "make them agree")
            return


def _place(settings: Settings) -> Iterator[Violation]:
    """Same account and region: DynamoDB developer guide, "Using Kinesis Data Streams to capture changes"."""
    source = settings.source
    if source.kind != "kinesis" or _has_endpoint(settings):
        return
    table, stream = arn_place(source.table or ""), arn_place(source.stream_arn or "")
    if table and stream and table != stream:
        yield Violation(
            "source.table",
            f"is in {' '.join(table)}, but source.stream_arn is in {' '.join(stream)}",
            "DynamoDB puts changes only into streams of the table's own region and account",
        )


def _max_records(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if source.kind == "dynamodb" and source.poll.max_records > _DYNAMODB_PAGE:
        found = source.poll.max_records
        yield Violation(
            "source.poll.max_records",
            f"must be a whole number from 1 to {_DYNAMODB_PAGE} for kind dynamodb, found {found}",
            "only Kinesis gives more in a call",
        )


def _target_latency(settings: Settings) -> Iterator[Violation]:
    """The default gives way to a short longest pause; another value would be a contradiction."""
    poll = settings.source.poll
    if poll.idle_backoff_max < poll.target_latency != Poll().target_latency:
        longest, found = format_duration(poll.idle_backoff_max), format_duration(poll.target_latency)
        yield Violation(
            "source.poll.target_latency",
            f"must be at most source.poll.idle_backoff_max, {longest}, found {found}",
            f"set idle_backoff_max: {found} too, if a record may wait so long",
        )


def _duplicates(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if source.kind == "dynamodb" and source.duplicates == "keep":
        yield Violation(
            "source.duplicates", "has no effect with kind dynamodb: a table's own stream repeats no change", "remove it"
        )


def _endless(settings: Settings) -> Iterator[Violation]:
    retry, kinesis = settings.retry, settings.source.kind == "kinesis"
    if settings.on_failure.destination is None or retry.max_retry_attempts >= 0:
        return
    if retry.max_record_age < 0:
        after = "when the stream's retention is over, 24 hours to 365 days" if kinesis else "after 24 hours"
        yield Violation(
            "retry.max_retry_attempts",
            f"retries never end before the record expires, so a dead letter comes {after}",
            "set a number of retries, or retry.max_record_age",
        )
    elif not kinesis and retry.max_record_age > _DYNAMODB_RETENTION:
        found = format_duration(retry.max_record_age)
        yield Violation(
            "retry.max_record_age",
            f"has no effect, found {found}: a DynamoDB stream keeps records for 24 hours, so a dead letter comes then",
            "set a number of retries, or at most 24h",
        )


def _data_filters(settings: Settings) -> Iterator[Violation]:
    if settings.source.kind == "kinesis":
        return
    for index, pattern in enumerate(settings.filters):
        for field in pattern:
            if field.partition(".")[0] == "data":
                hint = "write what is below data one level higher; Lambda has it for Kinesis only"
                yield Violation(
                    f"filters[{index}].{field}", "never matches: records of kind dynamodb have no data", hint
                )


SOURCE_RULES: Final = (
    Rule(("source.kind", "source.table", "source.stream", "source.stream_arn"), _one_source),
    Rule(("source.kind", "source.stream_arn"), _stream_arn),
    Rule(("source.kind", "source.poll.max_records"), _max_records),
    Rule(("source.poll.target_latency", "source.poll.idle_backoff_max"), _target_latency),
    Rule(("source.table", "source.stream_arn", "aws.region", "aws.endpoints"), _region),
    Rule(("source.kind", "source.table", "source.stream_arn", "aws.endpoints"), _place),
)
SOURCE_WARNINGS: Final = (
    Rule(("source.kind", "source.duplicates"), _duplicates),
    Rule(("source.kind", "on_failure.destination", "retry.max_retry_attempts", "retry.max_record_age"), _endless),
    Rule(("source.kind", "filters"), _data_filters),
)
