"""Documents that hold no mapping or several, and texts that try to break the file that is written."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli.lambda_import.document import parse
from consumer.cli.lambda_import.found import NotAMapping
from consumer.cli.lambda_import.intrinsics import Intrinsic
from consumer.cli.lambda_import.mapping import import_mapping
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.selection import readable_mappings
from consumer.cli.lambda_import.sources.detect import contents_of
from tests.unit.cli.lambda_mappings import FROM_CLI, LIKE_LAMBDA, QUEUE, STREAM, converted, settings_of, text_of


def test_one_of_a_list() -> None:
    assert yaml.safe_load(converted({"EventSourceMappings": [FROM_CLI]}, target="app:handler").yaml) == LIKE_LAMBDA
    with pytest.raises(NotAMapping, match=r"holds 2 event source mappings \(a \(orders-projector, orders\), b \("):
        converted({"EventSourceMappings": [FROM_CLI | {"UUID": "a"}, FROM_CLI | {"UUID": "b"}]})


@pytest.mark.parametrize(
    "document",
    [{}, {"a": 1}, {"Resources": {}}, {"Resources": {"A": None}}, {"Type": "AWS::S3::Bucket"}, [], None, 5, "text"],
)
def test_what_is_no_mapping(document: Any) -> None:
    with pytest.raises(NotAMapping, match="is no event source mapping"):
        converted(document)


@pytest.mark.parametrize(
    "text", ["{", '{"a": 1,}]', "a: [", "\x00", "a: b: c", "[" * 100_000, "a: 2026-13-45", "? [a]: 1"]
)
def test_what_is_neither_json_nor_yaml(text: str) -> None:
    with pytest.raises(NotAMapping):
        converted(text)


ALL = {
    "EVENT_SOURCE_ARN": STREAM,
    "ON_FAILURE_DESTINATION": QUEUE,
    "FILTER_CRITERIA": "[]",
    "FUNCTION_RESPONSE_TYPES": "false",
}
HOSTILE = ["x\ny: 1", "# a", "a: b", "${HOME}", "\u2028", "\x7f\x1b[31m", "'\"", "yes", "010", "", "é😀", "2026-13-45"]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_cannot_break_the_file(text: str, tmp_path: Path) -> None:
    pattern = {"eventName": [text, {"prefix": text}]}
    document = FROM_CLI | {
        "FunctionArn": text,
        text: text,
        "BatchSize": text,
        "StartingPosition": text,
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps(pattern)}]},
    }
    imported = converted(document, target="app:handler")
    settings = settings_of(imported, tmp_path)
    assert settings.filters == (pattern,)
    assert all(line.isprintable() for line in imported.yaml.split("\n"))
    assert all(str(note).isprintable() for note in imported.notes)


def test_damaged_files_are_converted_or_refused() -> None:
    """Of every format: whatever is in whatever place, the answer is a configuration or one line."""
    choose = random.Random(7)
    templates = ("sam.yaml", "cloudformation.yaml", "cdk.template.json", "serverless.yml")
    documents = [parse(text_of(name)) for name in (*templates, "list.yaml", "state.json", "plan.json")]
    converted_ones = 0
    for _ in range(400):
        document = damaged(choose.choice(documents), choose, choose.choice([0.005, 0.02, 0.05]))
        try:
            contents = contents_of(document, Parameters())
            for one in readable_mappings(contents):
                text = import_mapping(one).yaml
                assert isinstance(yaml.safe_load(text), dict)
                assert all(line.isprintable() for line in text.split("\n"))
                converted_ones += 1
        except NotAMapping:
            continue
    assert converted_ones > 100


DAMAGE: list[Any] = [
    None, 0, -1, True, 1e308, float("nan"), "", "x", [], {}, [None], [[{}]], {"a": []}, "function:", "{{resolve:x}}",
    "${self:custom.x}", "${a:b, 'c'}", "arn:aws:lambda:::function:", Intrinsic("Ref", "AWS::NoValue"),
    Intrinsic("Ref", ["x"]), Intrinsic("If", ["A", 1, 2]), Intrinsic("Sub", ["${a.b}", {"a": []}]),
    Intrinsic("GetAtt", []), Intrinsic("Join", 5), Intrinsic("FindInMap", ["Sizes", [], {}]),
    Intrinsic("Select", [0, 1]),
]  # fmt: skip


def damaged(value: Any, choose: random.Random, share: float) -> Any:
    if choose.random() < share:
        return choose.choice(DAMAGE)
    if isinstance(value, dict):
        return {1 if choose.random() < share / 10 else k: damaged(v, choose, share) for k, v in value.items()}
    return [damaged(item, choose, share) for item in value] if isinstance(value, list) else value


def test_anything_in_any_place_is_noted_and_never_crashes(tmp_path: Path) -> None:
    choose = random.Random(4)
    values: list[Any] = [None, 0, -1, 1e308, float("inf"), True, "", "x", [], [None], {}, {"a": []}, [[{}]], QUEUE]
    for _ in range(500):
        document = {key: choose.choice([value, *values]) for key, value in (FROM_CLI | {"FilterCriteria": {}}).items()}
        if document["EventSourceArn"] == QUEUE:
            continue
        imported = converted(document, target="app:handler")
        settings_of(imported, tmp_path, **ALL)
