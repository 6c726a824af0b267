"""What cannot be known is never dropped: the daemon refuses to start until somebody decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.settings.errors import ConfigError
from consumer.settings.load import load_settings
from tests.unit.cli.lambda_mappings import FROM_CLI, QUEUE, STREAM, converted

REF: dict[str, Any] = {"Ref": "Unset"}
NO_VALUE = {"Ref": "AWS::NoValue"}
KNOWN = {"Pattern": '{"eventName": ["INSERT"]}'}
PATTERNS = '[{"eventName": ["INSERT"]}, {"eventName": ["REMOVE"]}]'
BOTH = ({"eventName": ["INSERT"]}, {"eventName": ["REMOVE"]})
FILTERS = ("FILTER_CRITERIA", PATTERNS, "filters", BOTH)
DESTINATION = ("ON_FAILURE_DESTINATION", QUEUE, "on_failure.destination", QUEUE)
REPORT = ("FUNCTION_RESPONSE_TYPES", "true", "batch.report_batch_item_failures", True)


def either(one: Any, other: Any = NO_VALUE) -> dict[str, Any]:
    return {"Fn::If": ["Production", one, other]}


Decided = tuple[str, str, str, Any]
RULES: dict[str, tuple[dict[str, Any], Decided]] = {
    "a pattern with a parameter": (
        {"FilterCriteria": {"Filters": [KNOWN, {"Pattern": {"Fn::Sub": '{"eventName": ["${Unset}"]}'}}]}},
        FILTERS,
    ),
    "a pattern that is one": ({"FilterCriteria": {"Filters": [{"Pattern": REF}, KNOWN]}}, FILTERS),
    "a pattern in one of two": ({"FilterCriteria": {"Filters": [KNOWN, either(KNOWN)]}}, FILTERS),
    "a pattern that depends": ({"FilterCriteria": {"Filters": [KNOWN, {"Pattern": either("{}", "[]")}]}}, FILTERS),
    "a pattern out of the parameter store": (
        {"FilterCriteria": {"Filters": [KNOWN, {"Pattern": "{{resolve:ssm:/pattern:1}}"}]}},
        FILTERS,
    ),
    "a pattern that is no JSON": ({"FilterCriteria": {"Filters": [KNOWN, {"Pattern": "{"}]}}, FILTERS),
    "a filter without a pattern": ({"FilterCriteria": {"Filters": [KNOWN, {}]}}, FILTERS),
    "all filters": ({"FilterCriteria": {"Filters": REF}}, FILTERS),
    "filters in one of two": ({"FilterCriteria": {"Filters": either([KNOWN])}}, FILTERS),
    "the criteria": ({"FilterCriteria": either({"Filters": [KNOWN]})}, FILTERS),
    "filters that Lambda could not show": ({"FilterCriteriaError": {"ErrorCode": "AccessDenied"}}, FILTERS),
    "no list of filters": ({"FilterCriteria": {"Filters": "all"}}, FILTERS),
    "a destination": ({"DestinationConfig": {"OnFailure": {"Destination": REF}}}, DESTINATION),
    "a destination out of a Sub": (
        {"DestinationConfig": {"OnFailure": {"Destination": {"Fn::Sub": "arn:aws:sqs:${AWS::Region}:1:q"}}}},
        DESTINATION,
    ),
    "a destination in one of two": ({"DestinationConfig": either({"OnFailure": {"Destination": QUEUE}})}, DESTINATION),
    "on failure in one of two": ({"DestinationConfig": {"OnFailure": either({"Destination": QUEUE})}}, DESTINATION),
    "a FIFO queue": ({"DestinationConfig": {"OnFailure": {"Destination": f"{QUEUE}.fifo"}}}, DESTINATION),
    "a topic of Kafka": ({"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}}, DESTINATION),
    "a queue that SAM makes": ({"DestinationConfig": {"OnFailure": {"Type": "SQS"}}}, DESTINATION),
    "no destination at all": ({"DestinationConfig": "none"}, DESTINATION),
    "response types in one of two": (
        {"FunctionResponseTypes": either(["ReportBatchItemFailures"])},
        REPORT,
    ),
    "one of the response types": ({"FunctionResponseTypes": [either("ReportBatchItemFailures")]}, REPORT),
    "response types of a parameter": ({"FunctionResponseTypes": REF}, REPORT),
    "response types that nobody knows": ({"FunctionResponseTypes": ["Other"]}, REPORT),
    "the stream": (
        {"EventSourceArn": {"Fn::GetAtt": ["Orders", "StreamArn"]}},
        ("EVENT_SOURCE_ARN", STREAM, "source.stream_arn", STREAM),
    ),
    "where to start": (
        {"StartingPosition": REF},
        ("STARTING_POSITION", "trim_horizon", "source.starting_position", "trim_horizon"),
    ),
    "the batch size": ({"BatchSize": REF}, ("BATCH_SIZE", "7", "batch.batch_size", 7)),
    "the batch size in one of two": ({"BatchSize": either(10)}, ("BATCH_SIZE", "7", "batch.batch_size", 7)),
    "the window": (
        {"MaximumBatchingWindowInSeconds": REF},
        ("MAXIMUM_BATCHING_WINDOW_IN_SECONDS", "30s", "batch.batching_window", 30),
    ),
    "the tumbling window": (
        {"TumblingWindowInSeconds": either(60)},
        ("TUMBLING_WINDOW_IN_SECONDS", "1m", "batch.tumbling_window", 60),
    ),
    "the retries": (
        {"MaximumRetryAttempts": either(3, 9)},
        ("MAXIMUM_RETRY_ATTEMPTS", "9", "retry.max_retry_attempts", 9),
    ),
    "the age": (
        {"MaximumRecordAgeInSeconds": REF},
        ("MAXIMUM_RECORD_AGE_IN_SECONDS", "-1", "retry.max_record_age", -1),
    ),
    "bisecting": (
        {"BisectBatchOnFunctionError": either(True)},
        ("BISECT_BATCH_ON_FUNCTION_ERROR", "true", "retry.bisect_on_error", True),
    ),
}


def imported_text(changes: dict[str, Any]) -> str:
    template = {"Type": "AWS::Lambda::EventSourceMapping", "Properties": FROM_CLI | changes}
    return converted(json.dumps(template), target="app.handler").yaml


@pytest.mark.parametrize("rule", RULES)
def test_the_daemon_refuses_until_it_is_decided(rule: str, tmp_path: Path) -> None:
    changes, (variable, value, path, expected) = RULES[rule]
    file = tmp_path / "imported.yaml"
    file.write_text(imported_text(changes), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"environment variable {variable} is not set") as caught:
        load_settings(file, {"HANDLER_TIMEOUT": "30s"})
    assert {problem.path for problem in caught.value.problems} == {path}
    settings = load_settings(file, {"HANDLER_TIMEOUT": "30s", variable: value})
    read: Callable[[Any], Any] = attrgetter(path)
    assert read(settings) == expected


@pytest.mark.parametrize("rule", RULES)
def test_the_note_is_in_the_file(rule: str) -> None:
    changes, (variable, *_) = RULES[rule]
    lines = imported_text(changes).splitlines()
    assert any(line.startswith("# - ") and variable in line for line in lines)


def test_patterns_that_are_known_stay_to_be_copied() -> None:
    text = imported_text(RULES["a pattern with a parameter"][0])
    assert '# FilterCriteria.Filters[0].Pattern: {"eventName": ["INSERT"]}' in text
    assert '# FilterCriteria.Filters[1].Pattern: !Sub {"eventName": ["${Unset}"]}' in text


SAME: dict[str, tuple[dict[str, Any], str, Any]] = {
    "both branches": ({"BatchSize": either(7, 7)}, "batch.batch_size", 7),
    "both branches, each a list": (
        {"FunctionResponseTypes": either(["ReportBatchItemFailures"], ["ReportBatchItemFailures"])},
        "batch.report_batch_item_failures",
        True,
    ),
    "one type that is known": (
        {"FunctionResponseTypes": ["ReportBatchItemFailures", either("Other")]},
        "batch.report_batch_item_failures",
        True,
    ),
    "nothing in both branches": ({"FilterCriteria": either(NO_VALUE, NO_VALUE)}, "filters", ()),
    "no value": ({"DestinationConfig": NO_VALUE}, "on_failure.destination", None),
    "no filters in the list": ({"FilterCriteria": {"Filters": [NO_VALUE, KNOWN]}}, "filters", BOTH[:1]),
    "a Sub without anything": ({"BatchSize": {"Fn::Sub": "7"}}, "batch.batch_size", 7),
    "a Sub that writes itself": (
        {"FilterCriteria": {"Filters": [{"Pattern": {"Fn::Sub": '{"a": ["${!b}"]}'}}]}},
        "filters",
        ({"a": ["${b}"]},),
    ),
    "a pattern as JSON": (
        {"FilterCriteria": {"Filters": [{"Pattern": {"Fn::ToJsonString": {"eventName": ["INSERT"]}}}]}},
        "filters",
        BOTH[:1],
    ),
    "a part of a text": ({"BatchSize": {"Fn::Select": [1, {"Fn::Split": ["/", "a/7"]}]}}, "batch.batch_size", 7),
}


@pytest.mark.parametrize("case", SAME)
def test_what_can_be_known_is_known(case: str, tmp_path: Path) -> None:
    changes, path, expected = SAME[case]
    file = tmp_path / "imported.yaml"
    file.write_text(imported_text(changes), encoding="utf-8")
    read: Callable[[Any], Any] = attrgetter(path)
    assert read(load_settings(file, {"HANDLER_TIMEOUT": "30s"})) == expected


@pytest.mark.parametrize(
    ("types", "written"),
    [(None, False), ([], False), (["ReportBatchItemFailures"], True), ("ReportBatchItemFailures", True)],
)
def test_whether_failures_are_reported_is_always_written(types: Any, *, written: bool) -> None:
    batch = yaml.safe_load(imported_text({"FunctionResponseTypes": types}))["batch"]
    assert batch["report_batch_item_failures"] is written


def test_every_place_at_once() -> None:
    keys = [
        "FunctionName", "StartingPosition", "BatchSize", "MaximumBatchingWindowInSeconds", "ParallelizationFactor",
        "FunctionResponseTypes", "TumblingWindowInSeconds", "FilterCriteria", "MaximumRetryAttempts", "Enabled",
        "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError", "DestinationConfig", "EventSourceArn", "Tags",
    ]  # fmt: skip
    in_json = {key: {"Fn::GetAtt": ["Some", "Thing"]} for key in keys}
    in_yaml = "\n".join(f"{key}: !GetAtt Some.Thing" for key in keys)
    texts = [json.dumps({"Type": "AWS::Lambda::EventSourceMapping", "Properties": in_json}), in_yaml]
    for imported in (converted(text, target="app:handler") for text in texts):
        found = {note.option for note in imported.notes}
        assert found >= set(keys) - {"FunctionName", "DestinationConfig"} | {"OnFailureDestination"}
        written = yaml.safe_load(imported.yaml)
        assert written["application"] == "Some"
        assert written["batch"]["parallelization_factor"] == "${PARALLELIZATION_FACTOR}"
