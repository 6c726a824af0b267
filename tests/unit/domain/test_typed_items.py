"""``record.decode``: what annotations take, equal values, exact numbers, and errors that show nothing of the item."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import gc
import json
import threading
import uuid
import weakref
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NotRequired, TypedDict, TypeVar

import msgspec
import pytest
from boto3.dynamodb.types import Binary
from msgspec import Raw

from consumer.domain.events import batch_event_json, records_from_event
from consumer.domain.record import UNREADABLE, Change, Record
from consumer.domain.typed_items import decoder_of

ItemT = TypeVar("ItemT")


def record(item: Any, **images: Any) -> Record:
    texts = {name: Raw(json.dumps(image).encode()) for name, image in {"NewImage": item, **images}.items()}
    return Record(Change("4711", **texts), event_name="MODIFY")


class Line(msgspec.Struct):
    sku: str
    count: int
    price: Decimal


class Order(msgspec.Struct, rename={"key": "pk"}):
    key: str
    version: int
    lines: list[Line] = []
    paid: bool = False
    coupon: str | None = "none"
    digest: bytes = b""
    tags: frozenset[str] = frozenset()
    rates: set[float] = set()
    address: dict[str, Any] = {}


ORDER: dict[str, Any] = {
    "pk": {"S": "customer-1"},
    "version": {"N": "12"},
    "lines": {"L": [{"M": {"sku": {"S": "a"}, "count": {"N": "2"}, "price": {"N": "9.99"}, "more": {"S": "x"}}}]},
    "paid": {"BOOL": True},
    "coupon": {"NULL": True},
    "digest": {"B": "YWJj"},
    "tags": {"SS": ["x", "y"]},
    "rates": {"NS": ["0.5", "2"]},
    "address": {"M": {"street": {"S": "High Street"}, "number": {"N": "7"}}},
    "unknown": {"M": {"deep": {"L": [{"B": "YQ=="}]}}},
}


def test_an_order() -> None:
    """Renamed, nested, with what the class does not have; and what it lacks has its default."""
    address = {"street": "High Street", "number": Decimal(7)}
    line = Line("a", 2, Decimal("9.99"))
    tags = frozenset({"x", "y"})
    assert record(ORDER).decode(Order) == Order("customer-1", 12, [line], True, None, b"abc", tags, {0.5, 2.0}, address)
    bare = {name: ORDER[name] for name in ("pk", "version")}
    assert record(bare).decode(Order) == Order("customer-1", 12)


def test_defaults_are_not_shared() -> None:
    bare = record({name: ORDER[name] for name in ("pk", "version")})
    bare.decode(Order).lines.append(Line("a", 1, Decimal(1)))
    assert bare.decode(Order).lines == []


class Key(TypedDict):
    pk: str
    sk: NotRequired[int]


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 1.0
    squared: float = dataclasses.field(init=False, default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "squared", self.x * self.x)


def test_which_image() -> None:
    one = record({"x": {"N": "3"}}, OldImage={"x": {"N": "2"}, "y": {"N": "5"}}, Keys={"pk": {"S": "a"}})
    assert one.decode(Point) == Point(3.0)
    assert one.decode(Point).squared == 9.0
    assert one.decode(Point, image="old") == Point(2.0, 5.0)
    assert one.decode(Key, image="keys") == {"pk": "a"}
    assert one.decode(dict[str, int]) == {"x": 3}
    assert one.decode(dict[str, Any]) == one.new_image


def test_an_image_that_there_cannot_be() -> None:
    with pytest.raises(ValueError, match="image is 'new', 'old' or 'keys', and not 'nwe'"):
        record({"x": {"N": "1"}}).decode(Point, image="nwe")  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize("raw", [b"", b"null"])
def test_an_absent_image_is_an_error(raw: bytes) -> None:
    removed = Record(Change("4711", NewImage=Raw(raw), OldImage=Raw(b'{"x":{"N":"1"}}')), event_name="REMOVE")
    with pytest.raises(ValueError, match="record 4711, a REMOVE, has no new image to decode"):
        removed.decode(Point)
    assert removed.decode(Point, image="old") == Point(1.0)


def test_every_call_makes_a_value_of_its_own() -> None:
    """So that nothing has to be forgotten before the next attempt."""
    one = record(ORDER)
    first, second = one.decode(Order), one.decode(Order)
    assert first == second
    assert first is not second
    assert first.lines is not second.lines
    assert one.cached is None


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Cat(msgspec.Struct, tag="cat", tag_field="kind"):
    lives: int


class Dog(msgspec.Struct, tag="dog", tag_field="kind"):
    name: str
    puppies: list[Cat | Dog] = []


class Tree(msgspec.Struct):
    size: int = 0
    branches: list[Tree] = []
    twin: Tree | None = None


class Box(msgspec.Struct, Generic[ItemT]):
    content: ItemT


INSTANT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
DIGITS = "12345678901234567890123456789012345678"


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (str, {"S": ""}, ""),
        (int, {"N": DIGITS}, int(DIGITS)),
        (int, {"N": f"-{DIGITS}"}, -int(DIGITS)),
        (int, {"N": "1" + "0" * 125}, 10**125),
        (int, {"N": "2.50E+1"}, 25),
        (int, {"N": "7.0"}, 7),
        (Decimal, {"N": f"0.{DIGITS}"}, Decimal(f"0.{DIGITS}")),
        (Decimal, {"N": "1E-130"}, Decimal("1E-130")),
        (float, {"N": DIGITS}, float(DIGITS)),
        (float, {"N": "0.1"}, 0.1),
        (bool, {"BOOL": False}, False),
        (bytes, {"B": ""}, b""),
        (None, {"NULL": True}, None),
        (int | None, {"NULL": True}, None),
        (int | None, {"N": "1"}, 1),
        (int | str | set[int], {"S": "1"}, "1"),
        (int | str | set[int], {"NS": ["1"]}, {1}),
        (list[int], {"L": []}, []),
        (list[int | None], {"L": [{"N": "1"}, {"NULL": True}]}, [1, None]),
        (list, {"L": [{"N": "1"}, {"S": "a"}]}, [Decimal(1), "a"]),
        (tuple[str, ...], {"L": [{"S": "a"}, {"S": "b"}]}, ("a", "b")),
        (set[str], {"SS": ["a"]}, {"a"}),
        (set[int], {"NS": ["2"]}, {2}),
        (set[bytes], {"BS": ["YQ=="]}, {b"a"}),
        (frozenset[Decimal], {"NS": ["1.5"]}, frozenset({Decimal("1.5")})),
        (set, {"NS": ["1"]}, {Decimal(1)}),
        (dict[str, list[int]], {"M": {"a": {"L": [{"N": "1"}]}}}, {"a": [1]}),
        (dict, {"M": {"a": {"B": "YQ=="}}}, {"a": Binary(b"a")}),
        (Any, {"M": {"a": {"SS": ["x"]}}}, {"a": {"x"}}),
        (Key, {"M": {"pk": {"S": "a"}, "sk": {"N": "1"}}}, {"pk": "a", "sk": 1}),
        (Point | None, {"M": {"x": {"N": "1"}}}, Point(1.0)),
        (dt.datetime, {"S": "2026-01-02T03:04:05Z"}, INSTANT),
        (dt.date | None, {"S": "2026-01-02"}, dt.date(2026, 1, 2)),
        (uuid.UUID, {"S": str(UUID)}, UUID),
        (Color, {"S": "red"}, Color.RED),
        (Number, {"N": "1.0"}, Number.ONE),
        (Literal["a", 2, None], {"N": "2"}, 2),
        (Literal["a", 2, None], {"NULL": True}, None),
        (Annotated[int, msgspec.Meta(ge=3)], {"N": "3"}, 3),
        (Annotated[list[int], msgspec.Meta(max_length=1)], {"L": [{"N": "3"}]}, [3]),
        (Cat | Dog, {"M": {"kind": {"S": "cat"}, "lives": {"N": "9"}}}, Cat(9)),
        (Cat | Dog | None, {"NULL": True}, None),
        (
            Dog,
            {
                "M": {
                    "kind": {"S": "dog"},
                    "name": {"S": "Rex"},
                    "puppies": {"L": [{"M": {"kind": {"S": "cat"}, "lives": {"N": "1"}}}]},
                }
            },
            Dog("Rex", [Cat(1)]),
        ),
        (
            Tree,
            {"M": {"branches": {"L": [{"M": {"size": {"N": "2"}}}]}, "twin": {"M": {"twin": {"NULL": True}}}}},
            Tree(branches=[Tree(2)], twin=Tree()),
        ),
        (Box[int], {"M": {"content": {"N": "1"}}}, Box(1)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_annotations_take(annotation: Any, value: Any, expected: Any) -> None:
    type_ = msgspec.defstruct("Item", [("v", annotation)])
    found = record({"v": value}).decode(type_).v
    assert found == expected
    assert type(found) is type(expected)


SECRET = "hush"


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (str, {"N": "1"}, "attribute v: expected str (S), found N"),
        (int, {"S": SECRET}, "attribute v: expected int (N), found S"),
        (int, {"N": "1.5"}, "attribute v: expected int (N), found N with a fraction"),
        (int, {"N": "1" * 39}, "attribute v: expected int (N), found N that is none"),
        (Decimal, {"N": "NaN"}, "attribute v: expected Decimal (N), found N that is none"),
        (Decimal, {"S": "9.99"}, "attribute v: expected Decimal (N), found S"),
        (float, {"N": "Infinity"}, "attribute v: expected float (N), found N that is none"),
        (float, {"N": SECRET}, "attribute v: expected float (N), found N that is none"),
        (bytes, {"B": SECRET + "!"}, "attribute v: expected bytes (B), found B that is none"),
        (bytes, {"S": "YQ=="}, "attribute v: expected bytes (B), found S"),
        (bool, {"BOOL": "true"}, "attribute v: expected bool (BOOL), found BOOL that is none"),
        (str, {"NULL": True}, "attribute v: expected str (S), found NULL"),
        (int | None, {"S": SECRET}, "attribute v: expected int (N) or None (NULL), found S"),
        (int | None, {}, "attribute v: expected int (N) or None (NULL), found no attribute value"),
        (
            int | None,
            {"N": "1", "NULL": True},
            "attribute v: expected int (N) or None (NULL), found no attribute value",
        ),
        (str, {"S": SECRET, "N": "1"}, "attribute v: expected str (S), found no attribute value"),
        (str, {SECRET: "a"}, "attribute v: expected str (S), found no type of DynamoDB"),
        (str, SECRET, "attribute v: expected str (S), found no attribute value"),
        (str, None, "attribute v: expected str (S), found no attribute value"),
        (set[str], {"L": [{"S": SECRET}]}, "attribute v: expected set of str (SS), found L"),
        (set[int], {"NS": ["1", SECRET]}, "attribute v[...]: expected int (N), found N that is none"),
        (list[int], {"L": [{"N": "1"}, {"S": SECRET}]}, "attribute v[1]: expected int (N), found S"),
        (list[int], {"L": SECRET}, "attribute v: expected list (L), found L that is none"),
        (dict[str, int], {"M": {SECRET: {"S": SECRET}}}, "attribute v[...]: expected int (N), found S"),
        (dict[str, Any], {"M": {SECRET: {SECRET: 1}}}, "attribute v[...]: expected any attribute value, found none"),
        (list[Line], {"L": [{"M": {"sku": {"S": SECRET}, "count": {"N": "1"}}}]}, "attribute v[0].price: expected Dec"),
        (Line, {"S": SECRET}, "attribute v: expected Line (M), found S"),
        (Color, {"S": SECRET}, "attribute v: expected Color (S), found S that is none of its values"),
        (Number, {"N": "2"}, "attribute v: expected Number (N), found N that is none of its values"),
        (Literal["a"], {"S": SECRET}, "attribute v: expected Literal (S), found S that is none of its values"),
        (dt.datetime, {"S": SECRET}, "attribute v: expected datetime (S), found S that the annotation does not allow"),
        (Annotated[int, msgspec.Meta(ge=3)], {"N": "2"}, "attribute v: expected int (N), found N that the annotation"),
        (
            Annotated[list[int], msgspec.Meta(max_length=0)],
            {"L": [{"N": "3"}]},
            "attribute v: expected list (L), found",
        ),
        (
            Cat | Dog,
            {"M": {"kind": {"S": SECRET}}},
            "attribute v.kind: expected the tag (S) of Cat | Dog, found another",
        ),
        (Cat | Dog, {"M": {}}, "attribute v.kind: expected the tag (S) of Cat | Dog, found nothing"),
        (Dog, {"M": {"kind": {"S": "cat"}}}, "attribute v.kind: expected the tag (S) of Dog, found another"),
        (Dog, {"M": {"kind": {"S": "dog"}, "name": {"N": "5"}}}, "attribute v.name: expected str (S), found N"),
        (
            Tree,
            {"M": {"branches": {"L": [{"M": {"twin": {"S": SECRET}}}]}}},
            "attribute v.branches[0].twin: expected T",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_name_attribute_and_types_and_show_no_value(annotation: Any, value: Any, expected: str) -> None:
    type_ = msgspec.defstruct("Item", [("v", annotation)])
    with pytest.raises(ValueError, match=r"^record 4711: decode\(Item\) of its new image: ") as raised:
        record({"v": value, "other": {"S": SECRET}}).decode(type_)
    assert expected in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__  # what is behind it shows values, and is not printed


def test_a_missing_attribute_is_named() -> None:
    with pytest.raises(ValueError, match=r"attribute version: expected int \(N\), found nothing$"):
        record({"pk": {"S": "a"}}).decode(Order)


def test_forbid_unknown_fields_holds() -> None:
    type_ = msgspec.defstruct("Item", [("v", int)], forbid_unknown_fields=True)
    assert record({"v": {"N": "1"}}).decode(type_).v == 1
    with pytest.raises(ValueError, match="no attributes that the class has not"):
        record({"v": {"N": "1"}, "w": {"N": "1"}}).decode(type_)


@pytest.mark.parametrize("odd", [b'{"S":"\\ud800"}', b'{"N":NaN}', b'{"S":"\xff"}', b"Infinity"])
def test_what_only_the_json_module_reads_spoils_no_other_attribute(odd: bytes) -> None:
    one = Record(Change("4711", NewImage=Raw(b'{"x":{"N":"2"},"odd":' + odd + b"}")))
    assert one.decode(Point) == Point(2.0)


@pytest.mark.parametrize(
    "item", [rb'{"v":{"S":"\ud800"}}', b'{"v":{"S":"hush\xff"}}', rb'{"\ud800":{"S":"a"},"v":{"S":"a"}}']
)
@pytest.mark.parametrize(
    "type_", [dict[str, str], dict[str, Any], msgspec.defstruct("Item", [("v", str)])], ids=["texts", "any", "class"]
)
def test_text_that_is_none_is_an_error(item: bytes, type_: Any) -> None:
    """As in new_image: in what is wanted, and in names. A handler would fail with it later, at what it writes to."""
    one = Record(Change("4711", NewImage=Raw(item)))
    with pytest.raises(ValueError, match="does not decode") as raised:
        _ = one.new_image
    assert "hush" not in str(raised.value)
    with pytest.raises(ValueError, match=": it has a value that DynamoDB does not have"):
        one.decode(type_)


@pytest.mark.parametrize("text", [b"{", b"[]", b'"a"', b'{"x":{"N":"1"}', b'{"x":' * 100_000, b'{"unreadable":1}'])
def test_what_is_no_item_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="decode"):
        Record(Change("4711", NewImage=Raw(text))).decode(Point)


class Closed(msgspec.Struct, tag="closed", forbid_unknown_fields=True):
    at: int


class Open(msgspec.Struct, tag="open", forbid_unknown_fields=True):
    doors: list[Closed | Open] = []


def test_a_tag_is_no_unknown_field() -> None:
    shut = {"type": {"S": "closed"}, "at": {"N": "3"}}
    assert record(shut).decode(Closed) == Closed(3)
    assert record({"type": {"S": "open"}, "doors": {"L": [{"M": shut}]}}).decode(Open) == Open([Closed(3)])
    either = msgspec.defstruct("Item", [("door", Open | Closed)])
    assert record({"door": {"M": shut}}).decode(either).door == Closed(3)
    with pytest.raises(ValueError, match="attribute door: expected no attributes that the class has not"):
        record({"door": {"M": {**shut, "lock": {"S": SECRET}}}}).decode(either)


@pytest.mark.parametrize("image", ["new", "keys"])
def test_what_could_not_be_read_is_no_item_without_attributes(image: Any) -> None:
    """Not for a type whose attributes have defaults either; nor in a worker process, beside a record that only the json
    module reads."""
    unreadable = Record(Change("1", Keys=UNREADABLE, NewImage=UNREADABLE))
    odd = Record(Change("2", Keys=Raw(b'{"a":{"S":"\\ud800"}}')))
    for one in (unreadable, records_from_event(batch_event_json([unreadable, odd]))[0]):
        assert isinstance(one, Record)
        with pytest.raises(ValueError, match=r"record 1: its .* cannot be read$"):
            one.decode(Tree, image=image)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (int, "an item is a map"),
        (list[int], "an item is a map"),
        (dict[int, str], "no attribute of an item can become"),
        (dict[Annotated[str, msgspec.Meta(max_length=3)], str], "no attribute of an item can become"),
        (msgspec.defstruct("Item", [("v", "Nowhere")]), r"decode\(Item\): name 'Nowhere' is not defined"),
        (msgspec.defstruct("Item", [("v", int | float)]), r"int \| float: an attribute would not tell"),
        (msgspec.defstruct("Item", [("v", str | dt.datetime)]), "may not contain more than one str-like type"),
        (msgspec.defstruct("Item", [("v", complex)]), "no attribute of an item can become <class 'complex'>"),
        (msgspec.defstruct("Item", [("v", set[bool])]), "a set of DynamoDB has texts, numbers or binary, and not bool"),
        (msgspec.defstruct("Item", [("v", tuple[int, str])]), "no attribute of an item can become"),
        (TypedDict("Quoted", {'a"b': int}), "decode"),  # type: ignore[operator]  # mypy knows no such form
    ],
    ids=str,
)
def test_types_that_no_item_can_become(type_: Any, expected: str) -> None:
    with pytest.raises(TypeError, match=expected) as raised:
        record({}).decode(type_)
    assert str(raised.value).startswith("decode(")


def test_what_a_class_raises_is_its_own() -> None:
    @dataclass
    class Positive:
        x: int

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ArithmeticError(f"{self.x} is negative")

    assert record({"x": {"N": "1"}}).decode(Positive).x == 1
    with pytest.raises(ArithmeticError, match="-1 is negative"):
        record({"x": {"N": "-1"}}).decode(Positive)

    @dataclass
    class Checked:
        x: int

        def __post_init__(self) -> None:
            msgspec.convert(self.x, str)

    with pytest.raises(msgspec.ValidationError, match="Expected `str`, got `int`"):
        record({"x": {"N": "1"}}).decode(Checked)


class Unset(msgspec.Struct):
    x: int | msgspec.UnsetType = msgspec.UNSET
    y: int | msgspec.UnsetType | None = msgspec.UNSET


def test_absent_and_null_can_be_told_apart() -> None:
    assert record({}).decode(Unset) == Unset(msgspec.UNSET, msgspec.UNSET)
    assert record({"x": {"N": "1"}, "y": {"NULL": True}}).decode(Unset) == Unset(1, None)


def test_threads_share_decoders() -> None:
    """The first use of a type, by many threads at once."""
    item, found = record(ORDER), []
    fresh = msgspec.defstruct("Item", [("version", int), ("lines", list[Line])])
    start = threading.Barrier(8)

    def decode() -> None:
        start.wait()
        found.extend(item.decode(fresh).version for _ in range(50))

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [12] * 400


def test_compiled_types_are_bounded() -> None:
    """A handler that makes types as it goes leaks neither them nor their decoders."""
    decoder_of.cache_clear()
    one = record({"v": {"N": "1"}})
    first = msgspec.defstruct("Item", [("v", int)])
    gone = weakref.ref(first)
    one.decode(first)
    del first
    for place in range(decoder_of.cache_info().maxsize or 0):
        one.decode(msgspec.defstruct(f"Item{place}", [("v", int)]))
    assert decoder_of.cache_info().currsize == decoder_of.cache_info().maxsize
    gc.collect()
    assert gone() is None
    decoder_of.cache_clear()


def test_bytes_that_were_never_base64_text_of_the_service() -> None:
    """As in new_image: strict base64 alone."""
    type_ = msgspec.defstruct("Item", [("v", bytes)])
    for text in ("YQ", "Y Q==", "YQ==\n", "é"):
        with pytest.raises(ValueError, match="B that is none"):
            record({"v": {"B": text}}).decode(type_)
    assert record({"v": {"B": base64.b64encode(b"\x00\xff").decode()}}).decode(type_).v == b"\x00\xff"
