"""Files that are not even a mapping: hostile, damaged, or YAML of a kind that is not needed here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from consumer.settings.errors import ConfigError
from consumer.settings.expansion import scalar_value
from consumer.settings.load import load_settings
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE

DAMAGED = [
    ("", "c.yaml:1: yaml: the file is empty (application, source and handler are required)"),
    ("# only a comment\n", "c.yaml:1: yaml: the file is empty"),
    ("---\n", "c.yaml:1: yaml: the file is empty"),
    ("- a\n- b\n", "c.yaml:1: yaml: must be a mapping of keys to values, found a list"),
    ("just text\n", "c.yaml:1: yaml: must be a mapping of keys to values, found text"),
    ("a: [1, 2\nb: 3\n", "malformed YAML at line 2, column 2"),
    ("a: b: c\n", "c.yaml:1: yaml: malformed YAML at line 1, column 5: mapping values are not allowed"),
    ("a:\n\tb: 1\n", "(indent with spaces, not tabs)"),
    ("a: {b: ${C}}\n", '(inside [ ] or { } put "${...}" in quotes)'),
    ("a: 'unfinished\n", "malformed YAML"),
    ("a: *nowhere\n", "c.yaml:1: yaml: malformed YAML: no anchor &nowhere before this alias"),
    ("a: &x [*x]\n", "must not be nested deeper than 20 levels"),
    ("a: &x 1\nb: &x 2\n", "c.yaml:2: yaml: malformed YAML: a second anchor &x"),
    ("a: 1\0\n", "c.yaml:1: yaml: must not contain the control character U+0000"),
    (b"a: 1\nb: \xff\n", "c.yaml:2: yaml: must be UTF-8 text (save the file as UTF-8)"),
    ("a: 1\n".encode("utf-16"), "must be UTF-8 text"),
    ("a: " + "[" * 30 + "]" * 30, "must not be nested deeper than 20 levels"),
    ("[" * 100_000, "must not be nested deeper than 20 levels"),
    ("a: &x 1\nb: [" + "*x, " * 51 + "]", "c.yaml:2: yaml: must not use more than 50 aliases"),
    ("a: " + "x" * 1024 * 1024, "c.yaml:1: yaml: must not be larger than 1 MiB"),
    ("a: [" + "1, " * 10_001 + "]", "must not hold more than 10000 values"),
]


@pytest.mark.parametrize(("text", "expected"), DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_file_is_one_clear_line(problems: Problems, text: str | bytes, expected: str) -> None:
    started = time.monotonic()
    found = problems(text)
    assert len(found) == 1
    assert expected in found[0]
    assert time.monotonic() - started < 2


def test_nested_aliases_cannot_explode(problems: Problems) -> None:
    levels = ["a0: &a0 [x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 5)}]" for n in range(1, 10)]
    assert "must not hold more than 10000 values, aliases expanded" in problems("\n".join(levels))[0]


def test_aliases_cannot_nest_too_deep(problems: Problems) -> None:
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 30)]
    assert "must not be nested deeper than 20 levels" in problems("\n".join(levels))[0]


def test_problems_that_leave_the_rest_readable_come_with_the_others(problems: Problems) -> None:
    text = BASE + "leases: {table: !!python/object:os.system x}\n? [a, b]\n: 1\nhttp: !x {port: 70000}\n---\nb: 1\n"
    assert problems(text) == [
        "c.yaml:4: leases.table: the YAML tag !!python/object:os.system is not allowed (write a plain value)",
        "c.yaml:5: yaml: a key must be text, found a list or mapping",
        "c.yaml:7: http: the YAML tag !x is not allowed (write a plain value)",
        "c.yaml:7: http.port: must be a whole number from 0 to 65535, found 70000",
        "c.yaml:8: yaml: must be a single YAML document (remove the second ---)",
    ]


def test_a_byte_order_mark_anchors_and_core_tags_are_fine(load: Load) -> None:
    text = "\ufeff" + BASE + "checkpoint: {interval: &one 2s}\nleases: {duration: *one, table: !!str 1000}\n"
    settings = load(text)
    assert settings.leases.duration == settings.checkpoint.interval == 2
    assert settings.leases.table == "1000"


@pytest.mark.parametrize("name", ["missing.yaml", ".", "bad\0name"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: ") as caught:
        load_settings(tmp_path / name, {})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].line == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("", None),
        ("~", None),
        ("null", None),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-5", -5),
        ("12:30", "12:30"),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("2026-01-31", "2026-01-31"),
        ("=", "="),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert scalar_value(text) == value
    assert type(scalar_value(text)) is type(value)


def test_nan_is_a_number() -> None:
    assert scalar_value(".nan") != scalar_value(".nan")
