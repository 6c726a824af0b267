"""docs/cli.md has every verb of the command line with every option of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.unit.cli.test_command_line import VERBS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()
_, *PARTS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
SECTIONS = {tuple(part.split("\n", 1)[0].strip("`").split()): part for part in PARTS}


def test_every_verb_has_its_section_and_every_section_its_verb() -> None:
    assert list(SECTIONS) == list(VERBS)


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_options_exit_codes_and_an_example(path: tuple[str, ...]) -> None:
    """In the rows of its table, by all of their names."""
    section, command = SECTIONS[path], VERBS[path]
    rows = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"`(-[-\w]+)`", row)}
    assert shown == {name for one in command.params if isinstance(one, click.Option) for name in one.opts}
    assert re.search(r"^Exit codes: `0`", section, re.MULTILINE)
    example = re.search(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert example is not None
    assert f"stream-consumer {' '.join(path)}" in example[1]


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_examples_are_what_the_verb_takes(path: tuple[str, ...]) -> None:
    """Their options exist; what is piped into others is not looked at."""
    options = {name for one in VERBS[path].params for name in one.opts}
    for line in re.findall(rf"stream-consumer {' '.join(path)}\b([^|>#\n\")]*)", SECTIONS[path]):
        assert set(re.findall(r"(?<=\s)--[-\w]+", line)) <= options
