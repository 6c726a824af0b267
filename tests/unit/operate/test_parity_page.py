"""docs/lambda-parity.md names tests that exist, and every option that Lambda's API has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import botocore.loaders
import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "lambda-parity.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::([\w:]+)`", PAGE)))


def functions(file: Path) -> set[str]:
    """The tests of a file: ``test_x`` and ``Class::test_x`` (``test_x`` of any class, too)."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for one in inner:
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                found.add(one.name)
                if isinstance(node, ast.ClassDef):
                    found.add(f"{node.name}::{one.name}")
    return found


def rows() -> list[list[str]]:
    """The cells of every row whose table has a column "shown by"."""
    found: list[list[str]] = []
    shows = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            shows = False
        elif cells[-1] == "shown by":
            shows = True
        elif shows and not cells[0].startswith("---"):
            found.append(cells)
    return found


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda value: value)
def test_every_test_that_is_named_exists(file: str, name: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file(), f"there is no tests/{file}"
    assert name in functions(path), f"tests/{file} has no {name}"


def test_the_page_names_many_tests() -> None:
    """Otherwise the pattern above has stopped to match, and the test before it checks nothing."""
    assert len(NAMED) > 60
    assert len(rows()) > 50


def test_every_row_is_shown_by_a_test() -> None:
    bare = [cells[0] for cells in rows() if not re.search(r"`[\w/]+\.py::[\w:]+`", cells[-1])]
    assert bare == []


def test_every_option_of_lambdas_api_is_on_the_page() -> None:
    """Of the API as the installed SDK knows it: an option that AWS adds has to be looked at."""
    model = botocore.loaders.Loader().load_service_model("lambda", "service-2")
    options = set(model["shapes"]["CreateEventSourceMappingRequest"]["members"])
    mentioned = set(re.findall(r"[A-Z]\w+", " ".join(re.findall(r"`([^`]+)`", PAGE))))
    assert options - mentioned == set()


def test_no_row_is_left_to_do() -> None:
    assert "TODO" not in PAGE
