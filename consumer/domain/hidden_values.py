"""Values that no text may show: found in the forms in which programs write values into messages, and replaced.

A value is known by its attribute type. A text is looked for as it is and as JSON, Python's ``repr``, URLs and HTML
write it; a number in its usual spellings; binary as base64, hex, ``repr`` and, where it is one, as a text. Upper and
lower case are the same. The beginning of a value that was cut off is found, too: from 16 characters on anywhere, else
at the end of the text. What code has taken apart otherwise, hashed or encoded in another way, cannot be found.

What is too short to be told from other text is left alone: fewer than four bytes or two characters. What is shorter
than eight characters counts only as a word of its own, so that the value ``main`` does not take ``remain`` apart.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, DecimalException
from typing import Final
from urllib.parse import quote, quote_plus

from .json_spans import Malformed, text_of

MARK: Final = "[redacted]"

_LEAST_BYTES: Final = 4
_LEAST_CHARACTERS: Final = 2
_WORD: Final = 8  # characters; what is shorter has to stand alone
_HEAD: Final = 16  # characters by which a longer form is known
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.~-]*")  # all forms of such a text are the same
_QUIET: Final = re.compile(r"(?:(?![\"'\\/<>&])[ -~])*")  # nothing but URLs escapes anything in such a text
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LEAVES: Final = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")([ \t\n\r]*+:)?|(-?[0-9][0-9.eE+-]*+)', re.DOTALL)
_QUOTED: Final = str.maketrans({character: quote(character) for character in map(chr, range(32, 127))})
_ESCAPE: Final = re.compile(r"(?:\\[0abfnrtv]|%[0-9a-f]{2}|\\x[0-9a-f]{2}|\\u[0-9a-f]{4})\Z")
_LONGEST_ESCAPE: Final = 6
_DIGITS: Final = 200  # of a number that is written out; DynamoDB's have 38, and at most 126 before the point


class HiddenValues:
    """The values of some records. ``find`` gives the JSON of each, or None where any text may hold one; it is asked
    when the first text comes."""

    def __init__(self, find: Callable[[], Iterable[bytes | None]]) -> None:
        self._find = find

    def hide(self, text: str) -> str:
        """The text with ``MARK`` in the place of every value; only ``MARK`` when nobody can know what it holds."""
        forms = self._forms
        if forms is None:
            return MARK if text else text
        folded, places = _folded(text)
        spans = forms.spans(folded)
        if not spans:
            return text
        parts, at = [], 0
        for start, end in spans:
            begins, ends = (start, end) if places is None else (places[start], places[end - 1] + 1)
            if begins >= at:
                parts += [text[at:begins], MARK]
            at = max(at, ends)
        return "".join([*parts, text[at:]])

    @functools.cached_property
    def _forms(self) -> _Forms | None:
        values: set[tuple[str, str]] = set()
        for value in self._find():
            if value is None:
                return None
            try:
                values.update(_leaves(value))
            except Malformed:
                return None
        return _Forms(form for kind, text in values for form in _forms_of(kind, text))


class _Forms:
    """All forms of all values, to be looked up by how they begin."""

    def __init__(self, forms: Iterable[str]) -> None:
        whole = {_folded(form.strip())[0] for form in forms}
        whole = {form for form in whole if len(form) >= _LEAST_CHARACTERS and len(form.encode()) >= _LEAST_BYTES}
        self._short = {form for form in whole if len(form) < _HEAD}
        self._long: dict[str, list[str]] = {}
        for form in whole - self._short:
            self._long.setdefault(form[:_HEAD], []).append(form)
        self._heads = sorted({*self._short, *self._long})
        self._lengths: dict[str, list[int]] = {}
        for head in self._heads:
            lengths = self._lengths.setdefault(head[:_LEAST_CHARACTERS], [])
            if len(head) not in lengths:
                lengths.append(len(head))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where values are in a folded text: start and end, in order, apart from each other."""
        found: list[tuple[int, int]] = []
        lengths = self._lengths
        if not lengths:
            return found
        for start in range(len(text) - 1):
            known = lengths.get(text[start : start + _LEAST_CHARACTERS])
            if known is None:
                continue
            end = self._longest(text, start, known)
            if end and found and start <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], end))
            elif end:
                found.append((start, end))
        return found

    def _longest(self, text: str, start: int, lengths: list[int]) -> int:
        """Where the longest form ends that begins at ``start``; 0 when none does."""
        most = 0
        for length in lengths:
            end, head = start + length, text[start : start + length]
            if length == _HEAD:
                for form in self._long.get(head, ()):
                    most = max(most, start + _common(text, start, form))
            elif head in self._short and (length >= _WORD or _stands_alone(text, start, end)):
                most = max(most, end)
        left = text[start : start + _HEAD]
        is_cut = _LEAST_BYTES <= len(left) < _HEAD and self._begins(left)  # the text ends, maybe within the value
        return len(text) if is_cut and (len(left) >= _WORD or _stands_alone(text, start, len(text))) else most

    def _begins(self, left: str) -> bool:
        place = bisect_left(self._heads, left)
        return place < len(self._heads) and self._heads[place].startswith(left)


def _common(text: str, start: int, form: str) -> int:
    """How many characters of the form are there at ``start``."""
    if text.startswith(form, start):
        return len(form)
    low, high = 0, len(form)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text.startswith(form[:middle], start) else (low, middle)
    return low


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word goes on over the ends. An escape such as ``\\n`` before it is no part of a word."""
    goes_on = end < len(text) and _in_word(text[end - 1]) and _in_word(text[end])
    if goes_on or not start or not (_in_word(text[start - 1]) and _in_word(text[start])):
        return not goes_on
    return _ESCAPE.search(text[max(0, start - _LONGEST_ESCAPE) : start]) is not None


def _in_word(character: str) -> bool:
    """ASCII only: other scripts have no blanks between words, or are told by their length."""
    return character.isascii() and (character.isalnum() or character == "_")


def _folded(text: str) -> tuple[str, list[int] | None]:
    """The text without upper case, and for each character of it its place in ``text``; None: the same place."""
    if text.isascii():
        return text.lower(), None
    folded = [character.casefold() for character in text]
    places = [place for place, character in enumerate(folded) for _ in character]
    return "".join(folded).encode("utf-8", "replace").decode(), places


# --- values ------------------------------------------------------------------------------------------------


def _leaves(value: bytes) -> Iterator[tuple[str, str]]:
    """Attribute type and text of what is in the JSON of an attribute value. The names in a map count as values where
    they do not look like names. Malformed."""
    kind = "S"
    for found in _LEAVES.finditer(value):
        quoted, is_name, number = found.groups()
        if number is not None:
            yield "N", number.decode()
            continue
        text = text_of(quoted)
        if not is_name:
            yield kind, text
        elif _NAME.fullmatch(text) is None:
            yield "S", text
        else:
            kind = text[:1]


def _forms_of(kind: str, text: str) -> set[str]:
    """How programs write a value."""
    if kind == "N":
        return _of_number(text)
    return _of_binary(text) if kind == "B" else _of_text(text)


def _of_text(text: str) -> set[str]:
    if _PLAIN.fullmatch(text):
        return {text}
    if _QUIET.fullmatch(text):  # nearly all are, and a batch may have a hundred thousand
        quoted = text.translate(_QUOTED)
        return {text, " ".join(text.split()), quoted, quoted.replace("%20", "+")}
    lines = [line.strip() for line in text.splitlines()]
    texts = {text, text.strip(), " ".join(text.split()), *lines}
    if not text.isascii():
        clean = text.encode("utf-8", "backslashreplace").decode()
        texts |= {clean, unicodedata.normalize("NFC", clean), unicodedata.normalize("NFD", clean)}
    return {form for one in texts for form in _written(one)}


def _written(text: str) -> Iterator[str]:
    """As it is and quoted, once and twice: JSON in JSON is what a log holds of an answer that quotes a request."""
    once = {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]}
    once |= {*_quoted(repr, text), *_quoted(ascii, text), *_of_bytes(text.encode("utf-8", "replace"))}
    for one in once:
        yield from _again(one)
    yield from (html.escape(text), html.escape(text, quote=False))
    yield from (quote(text, errors="replace"), quote(text, safe="", errors="replace"))
    yield quote_plus(text, errors="replace")


def _again(written: str) -> Iterator[str]:
    """What was written, and written again as a part of something else."""
    yield written
    yield written.replace("/", "\\/")
    yield json.dumps(written, ensure_ascii=False)[1:-1]
    yield json.dumps(written)[1:-1]
    yield from _quoted(repr, written)


def _quoted(form: Callable[[str], str], text: str) -> Iterator[str]:
    """As Python quotes it, alone and as a part of a text with both kinds of quotes, where it escapes one of them."""
    yield form(text)[1:-1]
    if "'" in text:
        yield form(text + "\"'")[1 : -len("\"\\''")]


def _of_bytes(data: bytes) -> Iterator[str]:
    yield repr(data)[2:-1]
    if b"'" in data:
        yield repr(data + b"\"'")[2 : -len("\"\\''")]


def _of_number(text: str) -> set[str]:
    forms = {text}
    try:
        number = Decimal(text)
        if number.is_finite() and abs(number.adjusted()) < _DIGITS:
            short = number.normalize()
            plain = f"{short:f}"
            forms |= {str(number), str(short), f"{number:f}", plain, f"{short:,f}", f"{short:E}", repr(float(number))}
    except (DecimalException, ValueError, OverflowError):
        return _of_text(text)
    return {form.lstrip("+-") for form in forms}


def _of_binary(text: str) -> set[str]:
    forms = {text.rstrip("="), text.rstrip("=").translate(str.maketrans("+/", "-_"))}
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return forms | _of_text(text)
    forms |= {data.hex(), *(form for once in _of_bytes(data) for form in _again(once))}
    try:
        said = data.decode()
    except UnicodeDecodeError:
        return forms
    return forms | _of_text(said)
