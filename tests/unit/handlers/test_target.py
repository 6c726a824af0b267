"""Importing targets: names kept, path first, one clear line for every failure."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.handlers.handler_faults import import_error
from consumer.handlers.runtime.target import TargetError, load_target
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
    load_target("shop.orders:Handlers.handle", str(tmp_path))
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def handler(*args): pass",
        "def handler(event, context=None, more=()): pass",
        "class Handler:\n    def __call__(self, event, context): pass\nhandler = Handler()",
        "import functools\ndef f(a, event, context): pass\nhandler = functools.partial(f, 1)",
        "import functools\ndef f(event): pass\n@functools.wraps(f)\ndef handler(event, context): return f(event)",
        "handler = max",
        "class Odd:\n    __signature__ = 5\n    def __call__(self, *args): pass\nhandler = Odd()",
    ],
)
def test_whatever_takes_two_arguments_is_a_handler(tmp_path: Path, text: str) -> None:
    assert callable(load_target("target_app:handler", write_module(tmp_path, text, "target_app")))


@pytest.mark.parametrize(
    ("file", "target", "module"),
    [
        ("orders-stream.py", "orders-stream:handler", "orders-stream"),
        ("orders-stream.py", "orders-stream.handler", "orders-stream"),
        ("2024/app.py", "2024/app.handler", "2024.app"),
        ("src/my-functions/app.py", "src/my-functions/app:handler", "src.my-functions.app"),
        ("src/app.py", "src.app.handler", "src.app"),
    ],
)
def test_modules_are_named_as_on_lambda(tmp_path: Path, file: str, target: str, module: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("def handler(event, context): return __name__\n")
    assert load_target(target, str(tmp_path))(None, None) == module


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "target_app", "write it as module:attribute"),
        ("", "target_app:", "write it as module:attribute"),
        ("", "target_app..sub:handler", "write it as module:attribute"),
        ("", "/target_app:handler", "write it as module:attribute"),
        ("", "target_app:a-b", "'a-b' is no name"),
        ("", "target_app.class", "'class' is no name"),
        ("", "target_ap:handler", "there is no module 'target_ap' in {path} (did you mean 'target_app'?)"),
        ("", "target_app.sub:handler", "there is no module 'target_app.sub'"),
        ("", "consumer.mine:handler", "the name 'consumer' is the daemon's: use isolation: process"),
        ("def handler(): pass", "target_app:handlr", "{path}/target_app.py: target_app has no attribute 'handlr' (did"),
        ("class A: pass", "target_app:A.b", "target_app.A has no attribute 'b'"),
        ("def handler(event): pass", "target_app:handler", "target_app.py: target_app.handler is called with two arg"),
        ("def handler(event): pass", "target_app:handler", "does not take: too many positional arguments"),
        ("def handler(a, b, c): pass", "target_app:handler", "does not take: missing a required argument: 'c'"),
        ("def handler(a, *, context): pass", "target_app:handler", "does not take: too many positional arguments"),
        ("class handler: pass", "target_app:handler", "does not take: too many positional arguments"),
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
    with pytest.raises(TargetError) as caught:
        load_target(target, path)
    assert message.format(path=path) in str(caught.value)
    assert str(caught.value).startswith(f"handler.target {target!r}: ")
    assert "\n" not in str(caught.value)
    assert not caught.value.may_pass


_BUSY = """
class ServiceError(Exception):
    response = {{"ResponseMetadata": {{"HTTPStatusCode": {status}}}}}
raise ServiceError("asked too often")
"""


@pytest.mark.parametrize(
    ("text", "may_pass"),
    [
        ("raise ConnectionRefusedError('no database')", True),
        ("raise TimeoutError('no answer')", True),
        ("import socket\nraise socket.gaierror(-3, 'Temporary failure in name resolution')", True),
        ("import ssl\nraise ssl.SSLCertVerificationError('certificate is not yet valid')", True),
        ("raise OSError(101, 'Network is unreachable')", True),
        ("from urllib.request import urlopen\nurlopen('http://127.0.0.1:9')", True),
        ("import botocore.session as b\nb.get_session().create_client('s3', region_name='a').list_buckets()", True),
        (
            "try:\n    raise ConnectionResetError\nexcept OSError:\n    raise RuntimeError('no settings') from None",
            True,
        ),
        (_BUSY.format(status=503), True),
        (_BUSY.format(status=429), True),
        (_BUSY.format(status=403), False),
        ("open('/nowhere')", False),
        ("import ctypes\nctypes.CDLL('libnowhere.so')", False),
        ("raise RuntimeError('boom')", False),
        ("raise SystemExit(3)", False),
        ("class Odd(Exception):\n    response = code = 'text'\nraise Odd", False),
    ],
)
def test_an_import_that_wanted_the_network_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, may_pass: bool
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    path = write_module(tmp_path, text, "target_app")
    with pytest.raises(TargetError) as caught:
        load_target("target_app:handler", path)
    assert caught.value.may_pass is may_pass, caught.value
    problem = import_error(str(caught.value), may_pass=may_pass)
    assert type(problem) is (HandlerImportMayPass if may_pass else HandlerImportError)
    assert problem.exit_code == (69 if may_pass else 78)
