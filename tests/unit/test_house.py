"""The shape of the package that a reader relies on: small files, small classes, no circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "consumer").rglob("*.py"))
MAX_LINES, MAX_METHODS = 400, 20


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, also those that only a type checker sees."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found = inner if inner in MODULES else node.module
                if found in MODULES and MODULES[found].name != "__init__.py":
                    yield found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_classes_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
            assert len(methods) <= MAX_METHODS, f"{node.name} has {len(methods)} methods"


PYTHON = sorted(path for top in ("consumer", "tests", "demo", "benchmarks") for path in (ROOT / top).rglob("*.py"))
WAIVER = re.compile(r"# (?:noqa|type: ignore)\b")
REASONED = re.compile(r"# (?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])( +- +\S| +# +(?!noqa|type:)\S)")


def test_what_a_checker_must_overlook_has_a_reason_beside_it() -> None:
    """One a line is enough, after the last of them."""
    lines = [(path, number, line) for path in PYTHON for number, line in enumerate(path.read_text().splitlines(), 1)]
    waived = [(path, number, line) for path, number, line in lines if WAIVER.search(line) and "re.compile" not in line]
    assert waived
    assert [f"{path.relative_to(ROOT)}:{number}" for path, number, line in waived if not REASONED.search(line)] == []


def test_there_are_no_circles_between_files() -> None:
    graph = {module: set(imports_of(path)) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, chain: tuple[str, ...]) -> None:
        assert module not in chain, " -> ".join((*chain[chain.index(module) :], module))
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*chain, module))
            done.add(module)

    for module in graph:
        visit(module, ())
