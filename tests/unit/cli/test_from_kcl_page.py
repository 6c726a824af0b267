"""docs/from-kcl.md names tests that exist, every option of the command, and every key that has a counterpart."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest

from consumer.cli.kcl_import import multilang
from consumer.cli.kcl_import.command import import_kcl

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "from-kcl.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
SHOWN = re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda value: value)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in names_in(ROOT / "tests" / file)


def test_the_page_names_many_tests() -> None:
    """Otherwise the pattern above has stopped to match."""
    assert len(NAMED) > 20


def test_every_option_is_on_the_page() -> None:
    options = {name for one in import_kcl.params if isinstance(one, click.Option) for name in one.opts if "--" in name}
    assert len(options) > 8
    assert [name for name in sorted(options) if f"{name}" not in PAGE] == []


def test_every_key_that_is_converted_has_its_row() -> None:
    """As the converter's own text names them."""
    source = Path(multilang.__file__).read_text()
    keys = set(re.findall(r'self\._(?:get|whole|duration|url)\("(\w+)"', source)) | {
        "kinesisEndpoint",
        "dynamoDBEndpoint",
    }
    assert len(keys) > 12
    rows = " ".join(SHOWN)
    assert [key for key in sorted(keys) if f"`{key}`" not in rows] == []
