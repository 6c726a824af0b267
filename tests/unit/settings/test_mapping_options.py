"""Every option of a mapping: the ends of its range are taken, and anything beyond is an error that names the range."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from consumer.settings.model import Backoff, Batch, FilterOptions, Retry, Settings
from consumer.settings.on_failure import OnFailure
from consumer.settings.rules import RULES
from consumer.settings.yaml_file import parse
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE

QUEUE = "arn:aws:sqs:eu-west-1:123456789012:dlq"
TRUE_OR_FALSE = "must be true or false"
AGE = "1m to 8760h, or -1 for no limit"
DESTINATION = "must be an SQS ARN, an SNS ARN or s3://bucket/prefix"

# key: what the error says is allowed, values that are taken, values that are not
OPTIONS: dict[str, tuple[str, list[str], list[str]]] = {
    "batch.batch_size": ("must be a whole number from 1 to 10000", ["1", "10000"], ["0", "10001", "-1", "2.5", "x"]),
    "batch.batching_window": ("0s to 5m", ["0s", "300s"], ["301s", "6m", "1h", "5", "-1s", "soon", "true", "[]"]),
    "batch.parallelization_factor": ("must be a whole number from 1 to 256", ["1", "256"], ["0", "257", "true"]),
    "batch.order": ("must be key or shard", ["key", "shard"], ["stream", "KEY", "1"]),
    "batch.report_batch_item_failures": (
        TRUE_OR_FALSE,
        ["true", "false"],
        ["1", "yes", "[]", "ReportBatchItemFailures"],
    ),
    "batch.tumbling_window": ("0s to 15m", ["0s", "900s"], ["901s", "16m", "1h", "900", "-1s"]),
    "retry.max_retry_attempts": (
        "must be a whole number from -1 to 10000",
        ["-1", "0", "10000"],
        ["-2", "10001", "all"],
    ),
    "retry.max_record_age": (AGE, ["-1", "60s", "365d"], ["0", "1s", "59s", "366d", "8761h", "60", "-2", "-1s"]),
    "retry.bisect_on_error": (TRUE_OR_FALSE, ["true", "false"], ["0", "no", "half"]),
    "retry.backoff.initial": ("1ms to 1h", ["1ms", "30s"], ["0s", "61m", "-1s", "1"]),
    "retry.backoff.max": ("1ms to 24h", ["200ms", "24h"], ["0s", "25h", "x"]),
    "filter_options.numeric_on_n": (TRUE_OR_FALSE, ["true", "false"], ["1", "N"]),
    "on_failure.destination": (
        DESTINATION,
        [QUEUE, QUEUE.replace("sqs", "sns"), "s3://bucket/prefix"],
        ["dlq", "arn:aws:s3:::bucket", "https://sqs.eu-west-1.amazonaws.com/1/q", "s3://B"],
    ),
    "on_failure.overflow": (
        "must be s3://bucket/prefix",
        ["s3://bucket", "s3://bucket/a/b/"],
        ["bucket", QUEUE, "s3://"],
    ),
    "on_failure.format": ("must be full or lambda", ["full", "lambda"], ["json", "Lambda", "1"]),
    "on_failure.breaker": (TRUE_OR_FALSE, ["true", "false"], ["1", "off", "open"]),
    "on_failure.order": ("must be continue, park_key or block", ["continue"], ["stop", "1"]),
    "on_failure.redact": (
        "must be a list",
        ["[]", "[ssn, address.street, '*.email']"],
        ["ssn", "{ssn: true}"],
    ),
    "source.starting_position": (
        "must be trim_horizon, latest or an ISO-8601 time",
        ["trim_horizon", "latest", "2026-01-31T12:00:00Z"],
        ["AT_TIMESTAMP", "TRIM_HORIZON", "5", "horizon"],
    ),
}
BAD = [(key, value) for key, (_, _, values) in OPTIONS.items() for value in values]
GOOD = [(key, value) for key, (_, values, _) in OPTIONS.items() for value in values]


def one_line(key: str, value: str) -> str:
    """The option in flow style: ``retry.backoff.max`` and 1s as ``retry: {backoff: {max: 1s}}``."""
    section, *rest = key.split(".")
    text = f"{rest[-1]}: {value}"
    for name in reversed(rest[:-1]):
        text = f"{name}: {{{text}}}"
    if section == "source":
        return BASE.replace("{table: orders}", f"{{table: orders, {text}}}")
    if key in ("batch.tumbling_window", "batch.order"):
        text += ", parallelization_factor: 1"
    return f"{BASE}{section}: {{{text}}}\n"


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_value_outside_of_the_range_is_named_with_the_range(problems: Problems, key: str, value: str) -> None:
    allowed, *_ = OPTIONS[key]
    lines = [line for line in problems(one_line(key, value)) if f": {key}: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("c.yaml:2: " if key.startswith("source") else "c.yaml:4: ")
    assert allowed in lines[0], lines[0]
    assert ", found " in lines[0]


@pytest.mark.parametrize(("key", "value"), GOOD)
def test_the_ends_of_the_range_are_taken(tmp_path: Path, key: str, value: str) -> None:
    """As the configuration file is read, without the list of what is not built yet."""
    values = parse(one_line(key, value), "c.yaml", {})
    assert values.problems == []
    settings = Settings.model_validate(values.data, context={"base_dir": tmp_path})
    assert [broken for rule in RULES for broken in rule.check(settings)] == []


def test_no_option_is_forgotten() -> None:
    """A key that is added to these sections needs a row above."""

    def keys(prefix: str, model: type[BaseModel]) -> set[str]:
        return {f"{prefix}.{name}" for name in model.model_fields if name != "backoff"}

    sections: dict[str, type[BaseModel]] = {
        "batch": Batch,
        "retry": Retry,
        "retry.backoff": Backoff,
        "on_failure": OnFailure,
        "filter_options": FilterOptions,
    }
    expected = {key for prefix, model in sections.items() for key in keys(prefix, model)}
    assert set(OPTIONS) == expected | {"source.starting_position"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("filters: text", "filters: must be a list, found 'text'"),
        ('filters: ["{\\"eventName\\": [\\"INSERT\\"]}"]', "(as Lambda has it in its Pattern: take the quotes away"),
        ("filters: [{eventName: INSERT}]", "filters[0].eventName: must be an array of values or a mapping of fields"),
        ("filters: [{}]", "filters[0]: must not be empty; name at least one field"),
        ("filters: [{a: [{numeric: ['>']}]}]", "filters[0].a[0].numeric: must be a comparison such as"),
        ("filters: [{$or: [{eventName: [INSERT]}]}]", "filters[0].$or: must list two or more alternatives, found 1"),
        (
            "filters: [{$or: [{eventName: [INSERT]}, {dynamodb: {prefix: [a]}}, {numeric: [1]}]}]",
            "filters[0].$or[2]: must not name the field 'numeric', which is an operator",
        ),
        ("filters: [{$or: [{eventName: [INSERT]}, INSERT]}]", "filters[0].$or[1]: must be a mapping of event fields"),
        ("filters: [{a: [{numeric: ['>', 5, '<', 1]}]}]", "must have a lower bound below the upper one, found 5 and 1"),
    ],
)
def test_filters_name_place_and_form(problems: Problems, text: str, expected: str) -> None:
    """``test_dynamodb_invalid_event_filter``: AWS says "Invalid filter pattern definition." and no more."""
    (line,) = problems(BASE + text + "\n")
    assert expected in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("text", "c.yaml:4: filters: must be a list, found 'text'"),
        ('{"eventName": ["INSERT"]}', "c.yaml:4: filters: must be a list, found"),
        ('[{"eventName": "INSERT"}]', "c.yaml:4: filters[0].eventName: must be an array of values"),
        ('["INSERT"]', "c.yaml:4: filters[0]: must be a mapping of keys to values"),
        ('[{"a": [NaN]}]', "c.yaml:4: filters: must be a list"),
        ("[" * 30 + "]" * 30, "c.yaml:4: filters: must be a list"),
        ("[" * 100_000, "c.yaml:4: filters: must be a list"),
    ],
)
def test_filters_of_a_variable_are_checked_as_those_of_the_file(
    problems: Problems, load: Load, text: str, expected: str | None
) -> None:
    if expected is None:
        assert load(BASE + "filters: ${FILTERS}\n", {"FILTERS": text}).filters == ()
    else:
        (line,) = problems(BASE + "filters: ${FILTERS}\n", {"FILTERS": text})
        assert expected in line


def test_every_problem_of_every_filter_is_reported_at_once(problems: Problems) -> None:
    """One run, not one run per mistake: several in an array, in an ``$or``, in filters after one that is no mapping."""
    text = """\
batch: {batch_size: 0}
filters:
  - eventName: INSERT
  - text
  - dynamodb:
      NewImage:
        a: {S: [x, {prefx: a}, {suffix: 1}]}
        b: {N: [{numeric: [">", "5"]}]}
        c: {}
  - $or: [{}, {eventName: []}]
    eventSource: ["aws:dynamodb"]
  - {}
"""
    assert [line.split(": ")[:2] for line in problems(BASE + text)] == [
        ["c.yaml:4", "batch.batch_size"],
        ["c.yaml:6", "filters[0].eventName"],
        ["c.yaml:7", "filters[1]"],
        ["c.yaml:10", "filters[2].dynamodb.NewImage.a.S[1]"],
        ["c.yaml:10", "filters[2].dynamodb.NewImage.a.S[2].suffix"],
        ["c.yaml:11", "filters[2].dynamodb.NewImage.b.N[0].numeric[1]"],
        ["c.yaml:12", "filters[2].dynamodb.NewImage.c"],
        ["c.yaml:13", "filters[3].$or[0]"],
        ["c.yaml:13", "filters[3].$or[1].eventName"],
        ["c.yaml:15", "filters[4]"],
    ]
