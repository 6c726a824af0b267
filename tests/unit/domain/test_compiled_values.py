"""The compiled code makes of an image what Python makes of it, or leaves it to Python; and it is used only when it is
wanted, there and fit."""

from __future__ import annotations

import gc
import json
import random
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from boto3.dynamodb.types import Binary
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from benchmarks.records import render_templates
from consumer.domain import attribute_values, compiled_values
from consumer.domain.attribute_values import create_decimal, plain_binary
from consumer.domain.attribute_values import item_from_json as item_in_python
from consumer.domain.compiled_values import FORMAT, PACKAGE, VARIABLE, Choice, choose, use
from consumer.domain.record import Change, Record
from tests.unit.domain.test_attribute_values import NUMBERS, TEXT, every_number, values, wire

Item = Callable[[bytes], Any]


def decode_text(text: bytes) -> str:
    return msgspec.json.decode(text, type=str)


@pytest.fixture(scope="module")
def item(speedups: ModuleType) -> Item:
    """The compiled code alone, without Python behind it."""
    return speedups.Maker(create_decimal, decode_text, plain_binary).item  # type: ignore[no-any-return]  # a module without types


@pytest.fixture(autouse=True)
def python_afterwards() -> Iterator[None]:
    yield
    use(None)


def exactly(value: Any) -> Any:
    """Types, digits and order included."""
    if isinstance(value, Binary):
        assert vars(value) == {"value": value.value}
        return (type(value), type(value.value), value.value)
    if isinstance(value, dict):
        return [(name, exactly(inner)) for name, inner in value.items()]
    if isinstance(value, list | set):
        return (type(value), [exactly(inner) for inner in value])
    return (type(value), value.as_tuple() if isinstance(value, Decimal) else value)


def in_python(raw: bytes) -> Any:
    """What Python makes of it, exactly; None when it is an error."""
    try:
        return exactly(item_in_python(raw))
    except ValueError:
        return None


ITEMS = st.dictionaries(TEXT, values(st.one_of(NUMBERS, every_number())), max_size=6).map(wire)


def written(value: Any) -> Any:
    """As DynamoDB writes it: NULL is true."""
    if isinstance(value, list):
        return [written(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: True if name == "NULL" and isinstance(inner, bool) else written(inner) for name, inner in value.items()
    }


@given(ITEMS, st.booleans(), st.sampled_from([None, (",", ":"), (" ,\n", "\t:\r\n ")]))
@settings(max_examples=300)
def test_any_item_is_the_same_and_none_is_left_to_python(
    item: Item, wired: dict[str, Any], ascii_only: bool, separators: tuple[str, str] | None
) -> None:
    raw = json.dumps(written(wired), ensure_ascii=ascii_only, separators=separators).encode()
    assert exactly(item(raw)) == exactly(item_in_python(raw))


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, text in edits:
        place = at % (len(raw) + 1)
        raw = raw[:place] + text + raw[place + length :]
    return raw


PIECES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [
            *(b'"', b"\\", b"\\u", b"\\ud83d", b"\\ude00", b"{", b"}", b"[", b"]", b":", b",", b" ", b'{"S":"a"}'),
            *(b"0", b"-", b".", b"e5", b"E-", b"9" * 40, b"=", b"\xc3", b"\xed\xa0\x80", b"\x7f", b"\x1f", b"null"),
            *(b'"N":', b'"SS"', b'"BS":[', b'"M":{', b'"BL"', b'"NL"', b'"BOOL"', b'"NULL":true', b"true", b"1"),
        ]
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 6), PIECES), min_size=1, max_size=4)


@given(ITEMS, st.booleans(), EDITS)
@settings(max_examples=800)
def test_of_anything_else_it_makes_the_same_or_nothing(
    item: Item, wired: dict[str, Any], ascii_only: bool, edits: list[tuple[int, int, bytes]]
) -> None:
    """What Python refuses is left to it."""
    raw = edited(json.dumps(wired, ensure_ascii=ascii_only).encode(), edits)
    found = item(raw)
    if found is not NotImplemented:
        assert exactly(found) == in_python(raw)


SAMPLE = (
    b'{"pk":{"S":"caf\xc3\xa9 \\u00e9\\ud83d\\ude00 \\"\\\\"},"n":{"N":"-12.50E+3"},"b":{"B":"YWI="},"t":{"BOOL":true},'
    b'"z":{"NULL":true},"ss":{"SS":["a","b"]},"ns":{"NS":["1","2.50"]},"bs":{"BS":["YQ==","AAEC"]},'
    b'"l":{"L":[{"M":{"x":{"L":[]}}},{"BOOL":false}]},"m":{"M":{}}}'
)


def test_cut_off_anywhere_it_is_nothing(item: Item) -> None:
    assert exactly(item(SAMPLE)) == exactly(item_in_python(SAMPLE))
    for length in range(len(SAMPLE)):
        for part in (SAMPLE[:length], memoryview(SAMPLE)[:length], SAMPLE[:length] + b"\0"):
            assert item(part) is NotImplemented


@pytest.mark.parametrize("place", range(len(SAMPLE)))
def test_with_any_byte_changed_it_is_the_same_or_nothing(item: Item, place: int) -> None:
    for byte in range(256):
        raw = SAMPLE[:place] + bytes([byte]) + SAMPLE[place + 1 :]
        found = item(raw)
        if found is not NotImplemented:
            assert exactly(found) == in_python(raw), raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        '{"a":{}}',
        '{"a":{"S":"x","S":"y"}}',
        '{"a":{"S":"x"},"a":{"S":"y"}}',
        '{"m":{"M":{"a":{"S":"x"},"a":{"S":"y"}}}}',
        '{"a":{"BL":true}}',
        '{"a":{"NL":true}}',
        '{"a":{"bl":true}}',
        '{"a":{"BOOL":null}}',
        '{"a":{"NULL":false}}',
        '{"a":{"\\u0053":"x"}}',
        '{"a":{"N":"+1"}}',
        '{"a":{"N":" 1"}}',
        '{"a":{"N":"1_0"}}',
        '{"a":{"N":".5"}}',
        '{"a":{"N":"5."}}',
        '{"a":{"N":"\u0661"}}',
        '{"a":{"N":"1E999999999999999999999"}}',
        '{"a":{"N":"' + "1" * 39 + '"}}',
        '{"a":{"N":"0.' + "0" * 300 + '"}}',
        '{"a":{"B":"YQ"}}',
        '{"a":{"B":"YR=="}}',
        '{"a":{"B":"YWJ="}}',
        '{"a":{"B":"Y==="}}',
        '{"a":{"B":"===="}}',
        '{"a":{"B":"YQ==YQ=="}}',
        '{"a":{"B":"Y\\u0051=="}}',
        '{"a":{"S":"\\ud800"}}',
        '{"a":{"S":"\\udc00\\ud800"}}',
        '{"a":{"S":"\\x"}}',
        '{"a":{"S":"a\nb"}}',
        '{"a":{"S":"\u00e9\nb"}}',
        '{"a":{"L":[{"S":"x"},]}}',
        '{"a":{"S":"x"},}',
        '{"a":{"SS":["x",1]}}',
        '{"a" {"S":"x"}}',
        '{"a":{"S":"x"}} {}',
        '\ufeff{"a":{"S":"x"}}',
    ],
)
def test_what_is_odd_is_left_to_python(item: Item, text: str) -> None:
    assert item(text.encode()) is NotImplemented


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"":{"S":""}}',
        '{"a":{"S":"\x7f/"}}',
        '{"a":{"S":"\\/\\b\\f\\n\\r\\t\\u0000\\uD83D\\uDE00"}}',
        '{"\\u0061é":{"S":"é😀"}}',
        '{"a":{"B":""},"b":{"BS":["YQ==","YQ=="]}}',
        '{"a":{"SS":["x","x"]},"b":{"NS":["1","1.0"]}}',
        '{"a":{"N":"0E-999999999999999999999"}}',
        '{"a":{"N":"-0.00"},"b":{"N":"-00"},"c":{"N":"007"},"d":{"N":"1.500"},"e":{"N":"15e+01"},"f":{"N":"1E-130"}}',
        '{"a":{"N":"1' + "0" * 125 + '"},"b":{"N":"0.' + "0" * 129 + '1"}}',
    ],
)
def test_what_is_rare_is_its_own(item: Item, text: str) -> None:
    raw = text.encode()
    assert exactly(item(raw)) == exactly(item_in_python(raw))


def nested(levels: int) -> bytes:
    return b'{"a":' + b'{"L":[' * levels + b'{"S":"x"}' + b"]}" * levels + b"}"


def test_depth_has_a_bound(item: Item) -> None:
    assert exactly(item(nested(63))) == exactly(item_in_python(nested(63)))
    for levels in (64, 65, 1000, 1_000_000):
        assert item(nested(levels)) is NotImplemented


def test_only_what_cannot_change_meanwhile_is_read(item: Item) -> None:
    page = b"before" + SAMPLE + b"after"
    slices = (SAMPLE, Raw(SAMPLE), memoryview(page)[6 : 6 + len(SAMPLE)])
    assert [exactly(item(one)) for one in slices] == [exactly(item_in_python(SAMPLE))] * 3
    assert item(bytearray(SAMPLE)) is NotImplemented
    assert item(memoryview(bytearray(SAMPLE))) is NotImplemented
    for wrong in ("text", None, 5, memoryview(SAMPLE)[::2]):
        with pytest.raises((TypeError, BufferError)):
            item(wrong)  # type: ignore[arg-type]  # that is the point


def test_more_names_and_numbers_than_it_remembers(item: Item) -> None:
    """Those with an equal place in its tables, of any length, in any order."""
    chance = random.Random(7)
    letters = "ab"
    names = ["".join(chance.choices(letters, k=chance.randrange(40))) for _ in range(20_000)]
    for _ in range(3):
        for start in range(0, len(names), 50):
            some = dict.fromkeys(names[start : start + 50])
            raw = json.dumps({name: {"N": str(chance.randrange(2000) / 10)} for name in some}).encode()
            assert exactly(item(raw)) == exactly(item_in_python(raw))


class Unusual(Exception):
    pass


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("part", range(3))
def test_what_says_nothing_of_the_image_goes_through(speedups: ModuleType, error: type[Exception], part: int) -> None:
    def fails(*_: Any) -> Any:
        raise error

    parts: list[Any] = [create_decimal, decode_text, plain_binary]
    parts[part] = fails
    with pytest.raises(error):
        speedups.Maker(*parts).item(SAMPLE)


def test_any_other_error_leaves_the_image_to_python(speedups: ModuleType) -> None:
    """Until it has passed, as that of an import may."""
    failing = True

    def sometimes(make: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if failing:
                raise Unusual
            return make(*arguments)

        return call

    for part in range(3):
        parts: list[Any] = [create_decimal, decode_text, plain_binary]
        parts[part] = sometimes(parts[part])
        item = speedups.Maker(*parts).item
        failing = True
        assert item(SAMPLE) is NotImplemented
        failing = False
        assert exactly(item(SAMPLE)) == exactly(item_in_python(SAMPLE))


def test_a_binary_that_is_more_than_its_value_is_left_to_python(speedups: ModuleType) -> None:
    item = speedups.Maker(create_decimal, decode_text, lambda: None).item
    assert item(SAMPLE) is NotImplemented
    assert item(b'{"a":{"S":"x"}}') == {"a": "x"}


def test_nothing_is_left_behind(speedups: ModuleType) -> None:
    """Of good images, of those that end anywhere, of errors in between; and of the maker itself."""

    def fails() -> Any:
        raise Unusual

    inputs = [SAMPLE, *(SAMPLE[:length] for length in range(len(SAMPLE))), nested(63), nested(70)]
    inputs += [SAMPLE.replace(b"AAEC", b"AA?C"), SAMPLE.replace(b"2.50", b"2" * 50), SAMPLE.replace(b"\xc3", b"\xff")]

    def calls() -> None:
        for maker in (good, bad):
            for raw in inputs:
                maker.item(raw)

    good, bad = (speedups.Maker(create_decimal, decode_text, find) for find in (plain_binary, fails))
    counted = (Binary, Decimal, good, create_decimal, decode_text, speedups.Maker, NotImplemented, None, True)
    tracemalloc.start()
    try:
        calls()
        gc.collect()
        references, memory = [sys.getrefcount(one) for one in counted], tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            calls()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - memory < 2000, "bytes, after thousands of calls"
        assert max(abs(sys.getrefcount(one) - then) for one, then in zip(counted, references, strict=True)) < 10
    finally:
        tracemalloc.stop()


def test_a_maker_that_only_it_knows_is_collected(speedups: ModuleType) -> None:
    def circle() -> None:
        parts: list[Any] = []

        def find() -> Any:
            return (parts, Binary)[1]

        parts.append(speedups.Maker(create_decimal, decode_text, find))
        assert parts[0].item(SAMPLE)

    counts = []
    for _ in range(2):
        for _ in range(10):
            circle()
        gc.collect()
        counts.append(sys.getrefcount(speedups.Maker))  # each has a reference to its type
    assert counts[0] == counts[1]


def test_threads_that_start_at_once_find_the_same(speedups: ModuleType) -> None:
    together = threading.Barrier(8)

    def find() -> Any:
        together.wait(10)  # all are in here at the same time
        return plain_binary()

    item = speedups.Maker(create_decimal, decode_text, find).item
    with ThreadPoolExecutor(8) as threads:
        for found in [threads.submit(item, SAMPLE) for _ in range(8)]:
            assert exactly(found.result(20)) == exactly(item_in_python(SAMPLE))


def test_the_images_that_are_measured_are_its_own(item: Item) -> None:
    """Else the benchmark would measure Python twice."""
    for template in render_templates(2000, 1.7e9)[:50]:
        change = json.loads(b"0".join(template.parts))["dynamodb"]
        for image in (change["NewImage"], change["OldImage"]):
            assert isinstance(item(json.dumps(image).encode()), dict)


# --- which one is used ------------------------------------------------------------------------------


def installed(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, module)


def with_image(raw: bytes) -> Record:
    return Record(Change("1", NewImage=Raw(raw)))


def in_use() -> bool:
    """Whether compiled code gets to see images."""
    return compiled_values._compiled is not None


def test_it_is_used_where_it_is_installed(speedups: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, speedups)
    assert choose({}) == choose({VARIABLE: "1"}) == Choice("compiled code")
    monkeypatch.setattr(compiled_values, "item_in_python", lambda raw: {"made by": "Python"})
    assert with_image(b'{"a":{"N":"1.50"}}').new_image == {"a": Decimal("1.50")}
    assert with_image(b'{"a":{"NULL":false}}').new_image == {"made by": "Python"}, "what is not its own"
    assert choose({VARIABLE: "0"}) == Choice("Python")
    assert with_image(b'{"a":{"N":"1.50"}}').new_image == {"made by": "Python"}


def test_where_it_is_not_installed_there_is_nothing_to_say() -> None:
    assert choose({}, "stream_consumer_speedups_that_nobody_has") == Choice("Python")
    assert not in_use()


WRONG: dict[str, Callable[[Any], Any]] = {
    "another result": lambda raw: {} if raw == b'{"pk":{"S":"a"},"sk":{"N":"0"}}' else item_in_python(raw),
    "another type": lambda raw: {name: str(value) for name, value in item_in_python(raw).items()},
    "none at all": lambda raw: NotImplemented,
    "something of what is odd": lambda raw: {} if raw in (b"", b"{}") else item_in_python(raw),
    "a failure": lambda raw: 1 / 0,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_that_makes_something_else_is_not_used(wrong: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, SimpleNamespace(FORMAT=FORMAT, Maker=lambda *_: SimpleNamespace(item=wrong)))
    found = choose({})
    assert found.made_by == "Python"
    assert found.unfit
    assert not in_use()


def test_one_of_another_format_is_not_used(speedups: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, SimpleNamespace(FORMAT=FORMAT + 1, Maker=speedups.Maker))
    found = choose({})
    assert found.made_by == "Python"
    assert "format is 2, and not 1" in found.unfit


def test_one_that_cannot_be_loaded_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built for another machine, or for a library that is not there."""
    (tmp_path / "broken_speedups.so").write_bytes(b"no library")
    (tmp_path / "needy_speedups.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, reason in (("broken_speedups", "ImportError"), ("needy_speedups", "nowhere_to_be_found")):
        found = choose({}, name)
        assert found.made_by == "Python"
        assert reason in found.unfit
        assert not in_use()


def test_the_real_one_passes_what_it_is_asked(speedups: ModuleType) -> None:
    assert use(speedups) == Choice("compiled code")
    assert in_use()
    assert attribute_values.plain_binary() is Binary
