"""The JSON Schema, the effective configuration, and the two commands that print them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from consumer.cli.check_config import check_config
from consumer.cli.schema import schema
from consumer.settings.load import load_settings
from consumer.settings.model import Settings
from consumer.settings.printed import changed_settings, effective_yaml, json_schema, json_schema_text
from tests.unit.settings.conftest import Load
from tests.unit.settings.test_bad_files import BASE, STREAM
from tests.unit.settings.test_good_files import SAMPLES

FULL = f"""\
application: "1e3"
aws: {{region: eu-west-1, endpoints: {{s3: 'http://h/$${{A}}'}}}}
source: {{stream_arn: {STREAM}, starting_position: 2026-01-31T13:00:00.5+01:00}}
handler: {{kind: python, target: 'a.b:c.d', isolation: inline, timeout: 1500ms}}
retry: {{max_record_age: 90m, backoff: {{initial: 1ms}}}}
limits: {{buffer: 1.5MiB}}
idempotency: {{mode: off}}
"""


def _refused(data: dict[str, Any]) -> bool:
    return not jsonschema.Draft202012Validator(json_schema()).is_valid(data)


def test_the_schema_is_valid_and_the_shipped_file_is_the_generated_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    shipped = SAMPLES[0].with_name("consumer.schema.json").read_text()
    assert shipped == json_schema_text(), "regenerate it: stream-consumer schema > config/consumer.schema.json"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_every_sample_and_its_effective_form(sample: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(yaml.safe_load(sample.read_text()))
    validator.validate(yaml.safe_load(effective_yaml(load_settings(sample, {}))))
    assert sample.read_text().startswith("# yaml-language-server: $schema=./consumer.schema.json\n")


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("batch", {"batch_size": 0}),
        ("batch", {"unknown": 1}),
        ("http", {"port": "80"}),
        ("leases", {"duration": 10}),
        ("leases", {"duration": "10 s"}),
        ("limits", {"buffer": "64MB"}),
        ("logging", {"level": "warn"}),
        ("source", {"table": "t", "starting_position": "2026-01-31"}),
        ("application", "a#b"),
        ("handler", {}),
        ("handler", {"target": "a:b", "max_memory": 5}),
    ],
)
def test_the_schema_refuses(section: str, value: object) -> None:
    good = yaml.safe_load(BASE)
    assert not _refused(good)
    assert _refused({**good, section: value})


def test_the_schema_accepts_references_and_empty_sections() -> None:
    good = yaml.safe_load(BASE)
    assert not _refused({**good, "http": {"port": "${PORT:-1}"}, "leases": {"duration": "${D}s"}, "batch": None})


def test_every_key_is_documented_and_defaults_are_as_written() -> None:
    generated = json_schema()
    for definition in (generated, *generated["$defs"].values()):
        for name, field in definition["properties"].items():
            assert field.get("description") or "$ref" in field, name
    properties = generated["$defs"]["Handler"]["properties"]
    assert (properties["timeout"]["default"], properties["path"]["default"]) == ("1m", ".")
    assert generated["$defs"]["Limits"]["properties"]["buffer"]["default"] == "64MiB"
    assert generated["$defs"]["Retry"]["properties"]["max_record_age"]["default"] == -1


COMMAND = BASE.replace("{target: 'app:handler'}", "{command: [sh, -c, 'exec ./bootstrap']}")


@pytest.mark.parametrize("text", [BASE, FULL, COMMAND])
def test_effective_yaml_loads_back_to_equal_settings(load: Load, text: str) -> None:
    settings = load(text)
    assert load(effective_yaml(settings)) == settings


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_effective_yaml_of_the_samples_loads_back(load: Load, sample: Path) -> None:
    settings = load_settings(sample, {})
    assert load(effective_yaml(settings)) == settings


def test_effective_yaml_has_every_key(load: Load) -> None:
    printed = yaml.safe_load(effective_yaml(load(BASE)))
    assert list(printed) == list(Settings.model_fields)
    assert printed["handler"]["timeout"] == "1m"
    assert printed["limits"] == {"buffer": "64MiB", "max_shards": 0}


def test_effective_yaml_redacts_user_info(load: Load) -> None:
    settings = load(BASE + "aws: {endpoints: {s3: 'https://user:p@ss@host:1/x'}}\n")
    printed = effective_yaml(settings)
    assert "https://REDACTED@host:1/x" in printed
    assert "p@ss" not in printed
    assert load(printed)


def test_what_differs_from_the_defaults_is_listed_without_secrets(load: Load) -> None:
    plain = changed_settings(load(BASE))
    assert set(plain) == {"application", "source.table", "handler.target", "handler.path"}
    changed = changed_settings(
        load(
            BASE
            + "batch: {batch_size: 7}\nlimits: {buffer: 64MiB}\nhttp: {show_errors: true}\n"
            + "aws: {endpoints: {s3: 'https://user:p@ss@host:1/x?key=hidden'}}\n"
            + f"filters: [{{eventName: [{'x' * 500}]}}]\n"
        )
    )
    assert {key: text for key, text in changed.items() if key not in (*plain, "filters")} == {
        "aws.endpoints.s3": "https://REDACTED@host:1/x?REDACTED",
        "batch.batch_size": "7",
        "http.show_errors": "true",
    }
    assert len(changed["filters"]) < 210


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With the handler of BASE in it."""
    (tmp_path / "app.py").write_text("print('imported')\ndef handler(event, context): print('called')\n")
    return tmp_path


RETRIES = "retry: {max_retry_attempts: 5}\n"
GOOD = BASE + RETRIES + "on_failure: {destination: 's3://dead'}\n"


def checked(folder: Path, text: str, *options: str) -> Result:
    (folder / "c.yaml").write_text(text)
    return CliRunner().invoke(check_config, [*options, str(folder / "c.yaml")])


class TestCommands:
    def test_a_good_file(self, folder: Path) -> None:
        result = checked(folder, GOOD)
        assert (result.exit_code, result.stdout) == (0, f"{folder}/c.yaml: ok\n")
        assert result.stderr == "imported\n", "and not called"
        assert checked(folder, GOOD, "--no-import").stderr == ""

    def test_print_effective_writes_only_yaml_to_stdout(self, folder: Path) -> None:
        result = checked(folder, GOOD, "--print-effective")
        assert result.exit_code == 0
        assert result.stdout == effective_yaml(load_settings(folder / "c.yaml", {}))

    @pytest.mark.parametrize(
        ("text", "handler", "message"),
        [
            ("def handler(event, context): pass", "{target: 'app:handlr'}", "c.yaml:3: handler.target 'app:handlr': "),
            ("import nothing", "{target: 'app:handler'}", "c.yaml:3: handler.target 'app:handler': /"),
            ("import nothing", "{target: 'app:handler'}", "app.py:1: ModuleNotFoundError: No module named 'nothing'"),
            ("def handler(event): pass", "{target: 'app:handler'}", "does not take: too many positional arguments"),
            (
                "async def handler(r): pass",
                "{kind: python, target: 'app:handler', isolation: inline}",
                "too many positi",
            ),
            ("import os; os._exit(3)", "{target: 'app:handler'}", "ended during the import: exit status 3"),
            ("", "{command: [sh, -c, exit 3]}", "c.yaml:3: handler.command"),
        ],
    )
    def test_a_handler_that_cannot_be_called_is_found(
        self, folder: Path, text: str, handler: str, message: str
    ) -> None:
        (folder / "app.py").write_text(text)
        result = checked(folder, GOOD.replace("{target: 'app:handler'}", handler))
        assert (result.exit_code, result.stdout) == (78, "")
        assert message in result.stderr
        assert result.stderr.count("\n") == 1

    def test_passwords_in_what_user_code_says_are_not_shown(self, folder: Path) -> None:
        (folder / "app.py").write_text("raise RuntimeError('cannot reach https://user:secret@db.example/x')")
        result = checked(folder, GOOD)
        assert result.exit_code == 78
        assert "secret" not in result.stderr
        assert "https://REDACTED@db.example/x" in result.stderr

    def test_a_handler_that_lacks_the_network_here_is_a_warning(self, folder: Path) -> None:
        (folder / "app.py").write_text("raise ConnectionRefusedError('no database')")
        result = checked(folder, GOOD)
        assert (result.exit_code, result.stderr.startswith("warning: ")) == (0, True)
        assert checked(folder, GOOD, "--strict").exit_code == 78

    @pytest.mark.parametrize(
        ("text", "warning"),
        [
            (BASE + RETRIES, "c.yaml:1: on_failure.destination: is not set: a record that is given up"),
            (GOOD.replace(RETRIES, ""), "retry.max_retry_attempts: retries never end before the record expires"),
            (
                GOOD.replace("{target: 'app:handler'}", "{target: 'app:handler', timeout: 26s}"),
                "c.yaml:3: handler.timeout: is longer than shutdown.grace (25s): a stop cuts such a call off",
            ),
            (GOOD + "shutdown: {grace: 30s}\n", "handler.timeout: is longer than shutdown.grace (30s)"),
        ],
    )
    def test_what_works_and_may_surprise(self, folder: Path, text: str, warning: str) -> None:
        result = checked(folder, text, "--no-import")
        assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
        assert warning in result.stderr
        assert checked(folder, text, "--no-import", "--strict").exit_code == 78

    def test_a_bad_file(self, tmp_path: Path) -> None:
        file = tmp_path / "c.yaml"
        file.write_text(BASE + "bacth: 1\nhttp: {port: x}\n")
        result = CliRunner().invoke(check_config, [str(file)])
        assert (result.exit_code, result.stdout) == (78, "")
        assert result.stderr.count("\n") == 2
        assert f"{file}:4: bacth: unknown key (did you mean batch?)\n" in result.stderr

    @pytest.mark.parametrize(("service", "limit"), [("sqs", "1 MiB"), ("sns", "256 KiB")])
    def test_a_destination_with_a_limit_and_no_overflow_is_a_warning(
        self, tmp_path: Path, service: str, limit: str
    ) -> None:
        file = tmp_path / "c.yaml"
        text = BASE + RETRIES + f"on_failure:\n  destination: arn:aws:{service}:eu-west-1:123456789012:dlq\n"
        place = f"{file}:{text.count(chr(10))}: on_failure.destination: takes at most {limit}"
        result = checked(tmp_path, text, "--no-import")
        assert (result.exit_code, result.stdout) == (0, f"{file}: ok\n")
        assert result.stderr.startswith(f"warning: {place}")
        assert result.stderr.count("\n") == 1
        strict = checked(tmp_path, text, "--no-import", "--strict")
        assert (strict.exit_code, strict.stdout) == (78, "")
        assert strict.stderr == result.stderr.removeprefix("warning: ")
        assert load_settings(file, {}), "the daemon starts with it"

    @pytest.mark.parametrize(
        "on_failure",
        [
            "{destination: 's3://dead'}",
            "{destination: 'arn:aws:sqs:eu-west-1:123456789012:dlq', overflow: 's3://kept'}",
        ],
    )
    def test_what_holds_any_letter_is_no_warning(self, tmp_path: Path, on_failure: str) -> None:
        result = checked(tmp_path, BASE + RETRIES + f"on_failure: {on_failure}\n", "--strict", "--no-import")
        assert (result.exit_code, result.stderr) == (0, "")

    def test_a_file_that_cannot_be_used_has_errors_and_no_warnings(self, tmp_path: Path) -> None:
        file = tmp_path / "c.yaml"
        file.write_text(BASE + "bacth: 1\non_failure: {destination: 'arn:aws:sns:eu-west-1:123456789012:dlq'}\n")
        result = CliRunner().invoke(check_config, [str(file)])
        assert result.exit_code == 78
        assert "takes at most" not in result.stderr

    @pytest.mark.parametrize("name", ["missing.yaml", "."])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        result = CliRunner().invoke(check_config, [str(tmp_path / name)])
        assert result.exit_code == 78
        assert result.stderr.count("\n") == 1
        assert "cannot be read" in result.stderr

    def test_no_file_is_a_usage_error(self) -> None:
        assert CliRunner().invoke(check_config, []).exit_code == 2

    def test_schema(self) -> None:
        result = CliRunner().invoke(schema, [])
        assert json.loads(result.stdout) == json_schema()


def test_the_credentials_of_urls_are_shown_nowhere(load: Load) -> None:
    text = BASE.replace("target: 'app:handler'", "kind: http, target: 'https://svc:hunter2@host/in?api_key=SECRET'")
    text += "aws: {endpoints: {sqs: 'http://user:hunter2@localhost/?token=SECRET'}}\n"
    settings = load(text)
    for shown in (effective_yaml(settings), repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
        assert "SECRET" not in shown
    assert settings.handler.target.secret == "https://svc:hunter2@host/in?api_key=SECRET"
    assert settings.aws.endpoints.secret_urls() == {"sqs": "http://user:hunter2@localhost/?token=SECRET"}
    assert "https://REDACTED@host/in?REDACTED" in effective_yaml(settings)
