"""`on_failure.redact`: what is no path, where it could not keep its word, and where it may be taken for more."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.settings.load import load_with_warnings
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE
from tests.unit.settings.test_kinesis_source import warnings

S3 = "destination: 's3://dead/letters'"
OF_KINESIS = BASE.replace("{table: orders}", "{kind: kinesis, stream: s}")


def redacting(paths: str, more: str = S3, base: str = BASE) -> str:
    return f"{base}retry: {{max_retry_attempts: 3}}\non_failure: {{redact: {paths}, {more}}}\n"


@pytest.mark.parametrize(
    ("paths", "place", "expected"),
    [
        ("['']", "redact[0]", "must be names of attributes with dots between them"),
        ("[ok, a..b]", "redact[1]", "such as ssn, address.street or *.email"),
        ("['ssn*']", "redact[0]", "a step is one name; * alone is any one"),
        ("['items[0].ssn']", "redact[0]", "lists are passed through: write items.ssn for every element of items"),
        ("[5]", "redact[0]", "must be text, found 5"),
    ],
)
def test_what_is_no_path_is_named_with_its_place(problems: Problems, paths: str, place: str, expected: str) -> None:
    (line,) = problems(redacting(paths))
    assert f"on_failure.{place}: " in line
    assert expected in line


def test_lambdas_format_cannot_say_that_something_is_missing(problems: Problems) -> None:
    (line,) = problems(redacting("[ssn]", f"{S3}, format: lambda"))
    assert "on_failure.redact: cannot be used with on_failure.format lambda" in line
    assert line.endswith("(set format: full)")


def test_without_paths_any_format_will_do(load: Load) -> None:
    assert load(redacting("[]", f"{S3}, format: lambda")).on_failure.redaction is None
    redaction = load(redacting("[ssn, ssn]")).on_failure.redaction
    assert redaction is not None
    assert redaction.paths == ("ssn",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (redacting("[ssn]", ""), "no dead letter is sent without on_failure.destination"),
        (redacting("[NewImage.ssn]"), "write what is below NewImage or OldImage"),
        (redacting("[address.M.street, address.S]"), "redact[1]: ends with an attribute 'S'"),
        (
            redacting("[ssn]", f"{S3}, order: park_key"),
            "takes versions away from parked keys (on_failure.order park_key)",
        ),
        (redacting("[ssn]", base=OF_KINESIS), "data and no attributes"),
        (redacting("[ssn]") + "batch: {tumbling_window: 10s, parallelization_factor: 1}\n", "tumbling windows"),
    ],
)
def test_what_works_and_may_surprise(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = [line for line in warnings(text, tmp_path) if "on_failure.redact" in line]
    assert expected in line


def test_an_inline_handler_prints_where_nothing_is_searched(tmp_path: Path) -> None:
    base = BASE.replace("{target", "{kind: python, isolation: inline, target")
    text = redacting("[ssn]", base=base)
    (line,) = [line for line in warnings(text, tmp_path) if "on_failure.redact" in line]
    assert "inline handler" in line


def test_changes_of_one_table_through_kinesis_are_no_surprise(tmp_path: Path) -> None:
    text = redacting("[ssn]", base=OF_KINESIS.replace("stream: s", "stream: s, table: orders"))
    assert not [line for line in warnings(text, tmp_path) if "redact" in line]


def test_a_path_of_attributes_is_no_surprise(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(redacting("[ssn, address.street, '*.email', S]"))
    assert load_with_warnings(file, {})[1] == []
