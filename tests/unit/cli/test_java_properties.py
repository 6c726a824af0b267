"""Properties as Java reads them. Every expectation was compared with ``java.util.Properties`` of Java 17; it differs in
one, for half a character stays half a character there."""

from __future__ import annotations

import pytest

from consumer.cli.kcl_import.java_properties import MalformedProperties, Property, parse_properties

CASES: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "equals sign": (b"a=b", [("a", "b")]),
    "colon": (b"a : b", [("a", "b")]),
    "white space alone": (b"a \t b c", [("a", "b c")]),
    "only the first separator": (b"a==b\nc=d:e=f", [("a", "=b"), ("c", "d:e=f")]),
    "white space, then a separator": (b"a = = b", [("a", "= b")]),
    "leading white space": (b" \t\fa = b", [("a", "b")]),
    "trailing white space is the value's": (b"a = b ", [("a", "b ")]),
    "no value": (b"a\nb=\nc:", [("a", ""), ("b", ""), ("c", "")]),
    "no key": (b"=b", [("", "b")]),
    "comments and blank lines": (b"# x = y\n  ! z = 1\n\n \t\na = b # c", [("a", "b # c")]),
    "a comment does not go on": (b"# x \\\na = b", [("a", "b")]),
    "goes on in the next line": (b"a = b\\\n   c\\\r\n\td", [("a", "bcd")]),
    "goes on in the middle of the key": (b"a\\\n  b = c", [("ab", "c")]),
    "what looks like a comment in the next line": (b"a = b\\\n  # c", [("a", "b# c")]),
    "an even number of backslashes ends the line": (b"a = b\\\\\nc = d", [("a", "b\\"), ("c", "d")]),
    "an odd number goes on": (b"a = b\\\\\\\n c", [("a", "b\\c")]),
    "goes on with an empty line": (b"a = b\\\n\nc = d", [("a", "b"), ("c", "d")]),
    "a backslash alone begins nothing": (b"\\\n# c\na = b", [("a", "b")]),
    "the end of the file goes on": (b"a = b\\", [("a", "b")]),
    "old Macintosh": (b"a=1\rb=2\r\nc=3", [("a", "1"), ("b", "2"), ("c", "3")]),
    "separators in a key": (rb"a\=b\:c\ d = e", [("a=b:c d", "e")]),
    "control characters": (rb"a = \t\n\r\f", [("a", "\t\n\r\f")]),
    "other escapes count for nothing": (rb"a = c:\\temp\q\"", [("a", 'c:\\tempq"')]),
    "unicode": (rb"\u00fcber = \u20AC", [("über", "€")]),
    "a character of two escapes": (rb"a = \ud83d\ude00", [("a", "😀")]),
    "half a character": (rb"a = \ud83d", [("a", "�")]),
    "Latin-1": ("schlüssel = größe".encode("latin-1"), [("schlüssel", "größe")]),
    "UTF-8 is not what Java takes it for": ("a = ü".encode(), [("a", "Ã¼")]),
    "twice": (b"a = 1\na = 2", [("a", "1"), ("a", "2")]),
}


@pytest.mark.parametrize("name", CASES)
def test_as_java_reads_them(name: str) -> None:
    raw, expected = CASES[name]
    assert [(one.key, one.value) for one in parse_properties(raw)] == expected


def test_lines_are_those_of_the_keys() -> None:
    assert parse_properties(b"# c\n\na = 1\\\n\t2\nb = 3") == [Property("a", "12", 3), Property("b", "3", 5)]


@pytest.mark.parametrize("raw", [rb"a = \u12", rb"\uxyz1 = a", b"x\na = \\u"])
def test_half_an_escape_is_an_error_in_java_too(raw: bytes) -> None:
    with pytest.raises(MalformedProperties, match=rf"line {raw.count(bytes([10])) + 1}: \\u needs four hexadecimal"):
        parse_properties(raw)
