"""``stream-consumer filter test``: verdict, deciding clause, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumer.cli import filter as command

PAID = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"status": {"S": ["paid"]}}}}


def record(status: str, name: str = "INSERT") -> dict[str, Any]:
    change = {"SequenceNumber": "1", "Keys": {"id": {"S": "1"}}, "NewImage": {"status": {"S": status}}}
    return {"eventID": "e1", "eventName": name, "dynamodb": change}


class Files:
    def __init__(self, directory: Path) -> None:
        self.event = directory / "event.json"
        self.config = directory / "consumer.yaml"

    def test(self, filters: list[Any], event: Any, *options: str, **filter_options: bool) -> Result:
        """Run the command on a real config file with these filters (JSON is YAML)."""
        self.event.write_bytes(event if isinstance(event, bytes) else json.dumps(event).encode())
        settings = {
            "application": "a",
            "source": {"table": "orders"},
            "handler": {"target": "app:handler"},
            "filters": filters,
            "filter_options": filter_options,
        }
        self.config.write_text(json.dumps(settings))
        self.config.chmod(0o600)
        return self.run(*options)

    def run(self, *options: str) -> Result:
        arguments = ["test", "--config", str(self.config), "--event", str(self.event), *options]
        return CliRunner().invoke(command.filter_group, arguments)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (record("paid"), 0),
        (record("late"), 1),
        ([record("paid"), record("paid")], 0),
        ([record("paid"), record("late")], 1),
        ({"Records": [record("paid")]}, 0),
        ({"Records": [record("late")]}, 1),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_the_exit_code_tells_whether_all_pass(files: Files, event: Any, code: int, output: str) -> None:
    assert files.test([PAID], event, "--output", output).exit_code == code


def test_the_table_shows_the_deciding_clause(files: Files) -> None:
    result = files.test([PAID], record("late"))
    first, header, *clauses = result.stdout.splitlines()
    assert first == "record 0 (INSERT e1) is skipped: filters[0].dynamodb.NewImage.status.S: found 'late'"
    assert header.split() == ["HOLDS", "CLAUSE", "WANTED", "FOUND"]
    assert [line.split() for line in clauses] == [
        ["yes", "filters[0].eventName", '"INSERT"', '"INSERT"'],
        ["no", "filters[0].dynamodb.NewImage.status.S", '"paid"', '"late"'],
    ]


def test_json_has_everything(files: Files) -> None:
    found = json.loads(files.test([PAID], [record("paid"), record("late")], "--output", "json").stdout)
    assert (found["matched"], found["filters"]) == (False, 1)
    assert [one["matched"] for one in found["records"]] == [True, False]
    assert found["records"][1]["filters"][0]["clauses"][1] == {
        "clause": "filters[0].dynamodb.NewImage.status.S",
        "field": "dynamodb.NewImage.status.S",
        "matched": False,
        "wanted": ["paid"],
        "found": ["late"],
        "note": "",
    }


def test_numbers_are_compared_when_the_configuration_says_so(files: Files) -> None:
    change = {"SequenceNumber": "1", "NewImage": {"total": {"N": "150"}}}
    event = {"eventID": "e1", "eventName": "INSERT", "dynamodb": change}
    filters = [{"dynamodb": {"NewImage": {"total": {"N": [{"numeric": [">", 100]}]}}}}]
    off = files.test(filters, event)
    assert off.exit_code == 1
    assert "found '150'; numeric compares N and NS, which are text, only with filter_options.numeric_on_n" in off.stdout
    assert files.test(filters, event, numeric_on_n=True).exit_code == 0
    assert files.test(filters, event, numeric_on_n=False).exit_code == 1


def test_without_filters_everything_passes(files: Files) -> None:
    result = files.test([], record("late"))
    assert (result.exit_code, "there are no filters" in result.stdout) == (0, True)


def test_records_cannot_send_control_characters_to_the_terminal(files: Files) -> None:
    result = files.test([PAID], {**record("\x1b[2J\nfake"), "eventID": "\x1b]0;x\x07"})
    assert "\x1b" not in result.stdout
    assert len(result.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"{",
        b"5",
        b"[]",
        b"{}",
        b'{"Records":[]}',
        b'{"Records":5}',
        b"[5]",
        b"[" * 5000,
        b"\xff",
        b'{"dynamodb":5}',
    ],
)
def test_unusable_events_are_usage_errors(files: Files, event: bytes) -> None:
    result = files.test([PAID], event)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "event.json" in result.stderr


def test_a_missing_event_file_and_a_missing_option(files: Files) -> None:
    files.test([], record("x"))
    files.event.unlink()
    assert files.run().exit_code == 2
    assert CliRunner().invoke(command.filter_group, ["test"]).exit_code == 2


def test_bad_patterns_are_configuration_errors(files: Files) -> None:
    result = files.test([PAID, {"eventName": [{"prefx": "I"}]}], record("paid"))
    assert result.exit_code == 78
    assert "filters[1].eventName[0]: unknown operator 'prefx' (did you mean prefix?)" in result.stderr


def test_a_missing_configuration_is_a_configuration_error(files: Files) -> None:
    files.event.write_text(json.dumps(record("paid")))
    result = files.run()
    assert result.exit_code == 78
    assert "Traceback" not in result.output
