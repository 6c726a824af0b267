"""Importing targets: names kept, path first, one clear line for every failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.domain.errors import HandlerImportError
from consumer.handlers.target import load_target
from tests.integration.handlers.support import write_module


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_module_name_and_nested_attributes(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "orders.py").write_text("class Handlers:\n    @staticmethod\n    def handle(r, c): return __name__\n")
    function = load_target("shop.orders:Handlers.handle", str(tmp_path))
    assert function(None, None) == "shop.orders"
    assert sys.path[0] == str(tmp_path)
    load_target("shop.orders:Handlers", str(tmp_path))
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "target_app", "write it as module:attribute"),
        ("", "target_app:", "write it as module:attribute"),
        ("", "target-app:handler", "write it as module:attribute"),
        ("", "target_ap:handler", "there is no module 'target_ap' in {path} (did you mean 'target_app'?)"),
        ("", "target_app.sub:handler", "there is no module 'target_app.sub'"),
        ("", "consumer.mine:handler", "rename your package"),
        ("def handler(): pass", "target_app:handlr", "{path}/target_app.py: target_app has no attribute 'handlr' (did"),
        ("class A: pass", "target_app:A.b", "target_app.A has no attribute 'b'"),
        ("handler = None", "target_app:handler", "target_app.handler is not callable, it is a NoneType"),
        ("\n\nraise OSError('two\\nlines')", "target_app:handler", "target_app.py:3: OSError: two lines"),
        ("import json\njson.loads('{')", "target_app:handler", "target_app.py:2: JSONDecodeError"),
        ("from json import nothing", "target_app:handler", "target_app.py:1: ImportError"),
        ("x = (", "target_app:handler", "target_app.py:1: SyntaxError"),
        ("def __getattr__(name): raise ValueError(name)", "target_app:a", "target_app.py:1: ValueError: a"),
    ],
)
def test_failures_are_one_line(tmp_path: Path, text: str, target: str, message: str) -> None:
    path = write_module(tmp_path, text, "target_app")
    with pytest.raises(HandlerImportError) as caught:
        load_target(target, path)
    assert message.format(path=path) in str(caught.value)
    assert str(caught.value).startswith(f"handler.target {target!r}: ")
    assert "\n" not in str(caught.value)
