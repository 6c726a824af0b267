"""Values in the forms in which programs write them, and what must be left alone."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.domain.hidden_values import MARK, HiddenValues


def hiding(*values: object) -> Callable[[str], str]:
    """``hide`` for attribute values as Python has them in JSON."""
    return HiddenValues(lambda: [json.dumps(value).encode() for value in values]).hide


SECRET = 'O\'Brien "Bé" \\ 5/7 <x>'

WRITTEN = {
    "plain": str,
    "lower case": str.lower,
    "upper case": str.upper,
    "repr": repr,
    "ascii": ascii,
    "json": json.dumps,
    "json utf-8": lambda text: json.dumps(text, ensure_ascii=False),
    "json in json": lambda text: json.dumps({"body": json.dumps({"v": text})}),
    "json in repr": lambda text: repr(json.dumps({"v": text})),
    "repr in json": lambda text: json.dumps(repr({"v": text})),
    "repr in repr": lambda text: repr(repr(text)),
    "repr beside both quotes": lambda text: repr(f"\"'{text}'\""),
    "bytes in repr": lambda text: repr((f"\"' {text.encode()!r}",)),
    "item in repr": lambda text: repr({"name": {"S": text}}),
    "bytes": lambda text: repr(text.encode()),
    "url": lambda text: f"https://example.com/?name={quote(text)}&x=1",
    "url without slashes": lambda text: f"https://example.com/?name={quote(text, safe='')}&x=1",
    "form": lambda text: f"name={quote_plus(text)}",
    "html": lambda text: f"<b>{html.escape(text)}</b>",
    "slashes escaped": lambda text: json.dumps(text).replace("/", "\\/"),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_text_is_found_however_it_is_written(form: str) -> None:
    said = hiding({"S": SECRET})(f"no such customer: {WRITTEN[form](SECRET)}, sorry")
    assert MARK in said
    assert not any(part in said.lower() for part in ("brien", "b\u00e9", "5/7", "\\u00e9", "%c3%a9"))
    assert said.startswith("no such customer: ")
    assert said.endswith(", sorry")


@pytest.mark.parametrize(
    "text",
    [
        "4111222233334444",
        "4,111,222,233,334,444",
        "4111222233334444.0",
        "4.111222233334444E+15",
        "-4111222233334444",
    ],
)
def test_a_number_is_found_in_its_spellings(text: str) -> None:
    assert hiding({"N": "4111222233334444"})(f"card {text} declined") in (
        f"card {MARK} declined",
        f"card -{MARK} declined",
    )


def test_numbers_as_python_shows_them() -> None:
    hide = hiding({"N": "1234.50"}, {"N": "1E+7"})
    shown = hide(f"{Decimal('1234.50')!r} {1234.5} {float('1E+7')} {int(float('1E+7'))}")
    assert shown == f"Decimal('{MARK}') {MARK} {MARK} {MARK}"


@pytest.mark.parametrize(
    "written",
    [
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: data.hex().upper(),
        repr,
        lambda data: ascii(repr(data) + "'")[1:-3],
    ],
    ids=["base64", "base64url", "hex", "repr", "repr in repr"],
)
def test_binary_is_found(written: Callable[[bytes], str]) -> None:
    data = bytes(range(240, 256)) + b"\x00'key"
    said = hiding({"B": base64.b64encode(data).decode()})(f"<{written(data)}>")
    assert re.sub(r"""=|b?\\*['"]""", "", said) == f"<{MARK}>", "quotes and padding alone are left"


def test_binary_that_is_text_is_found_as_text() -> None:
    assert hiding({"B": base64.b64encode(b"my secret").decode()})("x my secret x") == f"x {MARK} x"


def test_all_that_is_inside_of_a_value_counts() -> None:
    value = {
        "M": {
            "street": {"S": "Elm Street 7"},
            "phones": {"SS": ["+49 151 1234", "+49 151 9999"]},
            "jane@example.com": {"BOOL": True},
            "deep": {"L": [{"M": {"pin": {"N": "987654"}}}]},
        }
    }
    said = hiding(value)("KeyError: 'street' of jane@example.com at elm street 7, +49 151 9999, pin 987654, True")
    assert said == f"KeyError: 'street' of {MARK} at {MARK}, {MARK}, pin {MARK}, True", (
        "names that look like names stay"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"N": "1"}, "line 1 of 1"),
        ({"N": "123"}, "line 123"),
        ({"S": "yes"}, "yes, it failed"),
        ({"BOOL": True}, "true is True"),
        ({"NULL": True}, "null and None"),
        ({"S": "main"}, "domain remains mainly"),
        ({"N": "1234"}, "id 91234 and 12345"),
        ({"S": ""}, "nothing"),
        ({"S": "    "}, "a      b"),
    ],
)
def test_short_values_tear_no_text_apart(value: object, text: str) -> None:
    assert hiding(value)(text) == text


@pytest.mark.parametrize(
    "text",
    ["in main(1234)", "main=1234", "at:\\nmain", "%3Dmain%20", "\\u0022main", "main", "1234.", "/1234/", "-1234"],
)
def test_short_values_are_found_as_words(text: str) -> None:
    said = hiding({"S": "main"}, {"N": "1234"})(text)
    assert MARK in said
    assert "1234" not in said
    assert "main" not in said


def test_scripts_without_blanks() -> None:
    assert hiding({"S": "田中"})("田中さんがいません") == f"{MARK}さんがいません"


def test_the_beginning_of_a_value_that_was_cut_is_found() -> None:
    hide = hiding({"S": "a long secret sentence that nobody may read"})
    assert hide("said 'a long secret sentence...' twice") == f"said '{MARK}...' twice"
    assert hide("cut at the end: a long s") == f"cut at the end: {MARK}"


def test_lines_of_a_value_are_found_one_by_one() -> None:
    hide = hiding({"S": "first line here\r\n  second line here\n"})
    assert hide("first line here") == MARK
    assert hide("    second line here") == f"    {MARK}"


def test_values_that_overlap_leave_nothing_between_them() -> None:
    assert hiding({"S": "abcdefghij"}, {"S": "ghijklmnop"})("<abcdefghijklmnop>") == f"<{MARK}>"
    assert hiding({"S": "abcdefgh"}, {"S": "abcdefghijkl"})("<abcdefghijkl>") == f"<{MARK}>"


def test_nothing_is_shown_when_nobody_knows_what_to_hide() -> None:
    hide = HiddenValues(lambda: [b'{"S":"x"}', None]).hide
    assert (hide("any text"), hide("")) == (MARK, "")


def test_values_are_looked_for_once_and_only_when_a_text_comes() -> None:
    asked = []
    hidden = HiddenValues(lambda: asked.append(1) or [])
    assert not asked
    assert (hidden.hide("a"), hidden.hide("b"), len(asked)) == ("a", "b", 1)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=30).filter(
    lambda text: len(text.strip()) >= 8
)
AROUND = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(WORDS, AROUND, AROUND, st.sampled_from(sorted(WRITTEN)))
@example("ſſſſſſſſ", "ß", "ß", "upper case")
@example("ΑΣΑΣΑΣΑΣ", "Β", "Β", "plain")
def test_no_long_value_stays(secret: str, before: str, after: str, form: str) -> None:
    written = WRITTEN[form](secret)
    said = hiding({"S": secret})(before + written + after)
    inner = secret.strip()
    assert inner not in said or inner in MARK
    assert written.strip("'\"") not in said or written in MARK


@given(st.lists(WORDS, max_size=5), st.text(max_size=60))
def test_a_text_without_values_stays_as_it_is(secrets: list[str], text: str) -> None:
    digits = "".join(character for character in text if character in "0123456789 ")
    others = [secret for secret in secrets if not any(c in "0123456789" for c in secret.casefold())]
    assert hiding(*({"S": secret} for secret in others if secret.strip().count(" ") == 0))(digits) == digits
