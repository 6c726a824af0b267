"""``stream-consumer import-esm``: what goes where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from consumer.cli.lambda_import.command import import_event_source_mapping

MAPPING = {
    "EventSourceArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T13:26:53.746",
    "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:orders-projector",
    "StartingPosition": "TRIM_HORIZON",
    "KMSKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/x",
}


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(import_event_source_mapping, list(arguments), input=stdin)


def test_yaml_on_stdout_and_the_rest_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    file.write_text(json.dumps(MAPPING))
    result = run(str(file), "--target", "app:handler")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["handler"]["target"] == "app:handler"
    assert "  KMSKeyArn: " in result.stderr
    assert "\n# - KMSKeyArn: " in result.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", [json.dumps, yaml.safe_dump])
def test_standard_input_in_any_form(encoding: str, form: object) -> None:
    assert callable(form)
    result = run("-", stdin=form(MAPPING).encode(encoding))
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["application"] == "orders-projector"


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"a": 1}', b"[]", b"\xff\x00", b"a: [", b"hello", b"{'a': \n\n b", b"\xff\xfe\x00"]
)
def test_what_is_no_mapping_is_one_line(text: bytes) -> None:
    result = run("-", stdin=text)
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.startswith("stream-consumer: standard input: ")
    assert result.stderr.count("\n") == 1


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.json", tmp_path):
        result = run(str(path))
        assert result.exit_code == 78
        assert result.stderr.count("\n") == 1
        assert "cannot be read" in result.stderr
