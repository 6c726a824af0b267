"""Images made into Python values by compiled code, where the package ``stream-consumer-speedups`` is installed.

It takes a third of the time of ``attribute_values``, and knows no errors: to an image that is not exactly as DynamoDB
writes them it says ``NotImplemented``, and ``attribute_values`` decides. What it gives is the same: types, digits and
order, too. A process that calls handlers asks for it at its start (``choose``); any other does without.
"""

from __future__ import annotations

import importlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from types import NotImplementedType
from typing import Any, Final, Literal, NamedTuple

import msgspec

from .attribute_values import create_decimal, plain_binary
from .attribute_values import item_from_json as item_in_python

PACKAGE: Final = "stream_consumer_speedups"
VARIABLE: Final = "STREAM_CONSUMER_SPEEDUPS"  # of the environment: 0 turns it off
FORMAT: Final = 1  # of what is passed to it, and what comes back

_decode_text = msgspec.json.Decoder(str).decode
_compiled: Callable[[bytes | memoryview], dict[str, Any] | NotImplementedType] | None = None


def item_from_json(raw: bytes | memoryview) -> dict[str, Any]:
    """A whole image or key map from its JSON text to Python values. ValueError when it does not decode."""
    if _compiled is not None:
        item = _compiled(raw)
        if not isinstance(item, NotImplementedType):
            return item
    return item_in_python(raw)


class Choice(NamedTuple):
    """What makes images into values from now on, and why the package is there and is not used, if it is not."""

    made_by: Literal["compiled code", "Python"]
    unfit: str = ""


def choose(environ: Mapping[str, str], package: str = PACKAGE) -> Choice:
    """Use the compiled code if it is wanted, installed and fit."""
    if environ.get(VARIABLE) == "0":
        return use(None)
    try:
        return use(importlib.import_module(package))
    except ModuleNotFoundError as error:
        return use(None) if error.name == package else use(None, repr(error))
    except Exception as error:  # noqa: BLE001  # whatever is wrong with it, there is a way without it
        return use(None, repr(error))


def use(module: Any, unfit: str = "") -> Choice:
    """Use this one; None for Python. ValueError, and nothing has changed, when it is not fit."""
    global _compiled
    if module is None:
        _compiled = None
        return Choice("Python", unfit)
    if module.FORMAT != FORMAT:
        raise ValueError(f"its format is {module.FORMAT}, and not {FORMAT}")
    _try_out(module.Maker(create_decimal, _decode_text, lambda: _Bytes).item)
    _compiled = module.Maker(create_decimal, _decode_text, plain_binary).item
    return Choice("compiled code")


class _Bytes:
    """Stands for boto3's Binary, which is dear to import."""

    value: bytes


_PLAIN: Final = (
    b"{}",
    b'{"pk":{"S":"a"},"sk":{"N":"0"}}',
    b'{"\xc3\xa9":{"S":"\xf0\x9f\x98\x80 \\u00e9\\ud83d\\ude00\\n"},"":{"S":""}}',
    b'{"a":{"N":"-1.50"},"b":{"N":"1E+2"},"c":{"N":"-0"},"d":{"N":"99999999999999999999999999999999999999"}}',
    b'{"t":{"BOOL":true},"f":{"BOOL":false},"n":{"NULL":true}}',
    b'{"m":{"M":{"l":{"L":[{"M":{}},{"L":[]},{"N":"7"}]}}},"ss":{"SS":["x"]},"ns":{"NS":["1.0"]}}',
    b' { "a" : { "S" : "b" } , "c" : { "L" : [ { "NULL" : true } , { "BOOL" : false } ] } } ',
)
_ODD: Final = (
    b"",
    b"[]",
    b'{"a":{"S":"b"}',
    b'{"a":{"S":"b"}}x',
    b'{"a":{}}',
    b'{"a":{"S":"b","N":"1"}}',
    b'{"a":{"X":"b"}}',
    b'{"a":{"N":"NaN"}}',
    b'{"a":{"N":"' + 39 * b"9" + b'"}}',
    b'{"a":{"S":"\xff"}}',
    b'{"a":{"S":"\\ud800"}}',
    b'{"a":{"B":"YQ"}}',
    b'{"a":{"S":"b"},"a":{"S":"c"}}',
)


def _try_out(item: Callable[[bytes], Any]) -> None:
    """A build for another machine, or a Python that has changed, should be known before a record meets it."""
    for raw in _PLAIN:
        if repr(item(raw)) != repr(item_in_python(raw)):  # types, digits and order included
            raise ValueError(f"it does not make of {raw!r} what Python makes")
    for raw in _ODD:
        if item(raw) is not NotImplemented:
            raise ValueError(f"it makes something of {raw!r}")
    for value in (b"", b"a", b"ab", bytes(range(256))):
        (found,) = item(b'{"b":{"B":"' + b64encode(value) + b'"}}').values()
        if type(found) is not _Bytes or found.value != value:
            raise ValueError("it does not decode binary values")
