"""Whatever a file holds, the answer is settings or a list of problems, never another exception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from consumer.settings.errors import ConfigError
from consumer.settings.load import load_settings
from consumer.settings.model import Settings
from consumer.settings.yaml_file import LOADER, loader_on, parse, read_text
from tests.unit.settings.test_good_files import SAMPLES

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["${A}", "${B:-1}", "${", "1s", "-1", "64MiB", "arn:aws:sqs:a:b:c", "arn:::::", "http://[", "s3://"]
    )
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))


def _paths(model: type[BaseModel] = Settings, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, field in model.model_fields.items():
        found.append((*prefix, name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _paths(field.annotation, (*prefix, name))
    return found


def _check(file: Path) -> None:
    problems, text = (), ""
    try:
        assert load_settings(file, {"A": "1"})
    except ConfigError as error:
        problems, text = error.problems, str(error)
    assert len(text.splitlines()) == len(problems)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(_paths()), VALUES), max_size=4))
def test_any_value_at_any_key(tmp_path: Path, changes: list[tuple[tuple[str, ...], Any]]) -> None:
    data: dict[str, Any] = {"application": "a", "source": {"table": "abc"}, "handler": {"target": "a:b"}}
    for path, value in changes:
        section = data
        for key in path[:-1]:
            inner = section.get(key)
            if not isinstance(inner, dict):
                inner = section[key] = {}
            section = inner
        section[path[-1]] = value
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(data))
    _check(file)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_to_a_good_file(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(SAMPLES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"{", b"\n- ", b"&a ", b"*a"])
        )
    file = tmp_path / "c.yaml"
    file.write_bytes(raw)
    _check(file)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.text(alphabet="{}[]&*!:-?|>'\"%@`#\n\t ,ab1", max_size=40).map(str.encode))
@example(b"%YAML 1.1\n---\na: 1")
@example(b"? - a\n: b")
@example(b"a: |\n  x\n ${")
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(raw)
    _check(file)


def test_without_the_c_parser_the_values_are_the_same() -> None:
    python = loader_on(yaml.BaseLoader)
    for sample in SAMPLES:
        text = read_text(sample)
        assert parse(text, "c.yaml", {}, python) == parse(text, "c.yaml", {})
    text = "a: 1\na: !x 2\nb:\n- ${A}\n- '${B}'\n- !!str 5\n---\nc: 1\n"
    assert parse(text, "c.yaml", {"A": "1"}, python) == parse(text, "c.yaml", {"A": "1"})


@pytest.mark.parametrize("text", ["a: [1\nb: 2\n", "a: *x\n", "[" * 50, "a:\n\tb: 1\n"])
def test_without_the_c_parser_damage_is_one_problem_on_the_same_line(text: str) -> None:
    """The reason is in each parser's own words."""
    lines = set()
    for loader in (LOADER, loader_on(yaml.BaseLoader)):
        with pytest.raises(ConfigError) as caught:
            parse(text, "c.yaml", {}, loader)
        (problem,) = caught.value.problems
        lines.add(problem.line)
    assert len(lines) == 1
