"""What commands that list things print: a table for people, or JSON."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from rich.table import Table

output_option = click.option("--output", type=click.Choice(["table", "json"]), default="table", help="Default table.")

_DUMB: Final = {"dumb", "unknown"}  # to rich their screens have 80 columns, and it cuts what is longer
_ENDLESS: Final = 100_000  # columns: nothing is cut or wrapped, so that ids can be copied and lines be searched


class Styled(str):
    """A cell in a style of rich ("red", "dim"), where there are colours."""

    __slots__ = ("style",)
    style: str

    def __new__(cls, text: str, style: str) -> Styled:
        cell = super().__new__(cls, text)
        cell.style = style
        return cell


def plain(text: str) -> str:
    """Nothing out of a record, a letter or a row reaches the terminal as control characters."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first row their names. With the colours of ``Styled`` cells on a terminal, unless NO_COLOR is set or
    TERM names one that cannot show them; plain elsewhere."""
    from rich.console import Console

    text = io.StringIO()
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in _DUMB
    Console(file=text, force_terminal=has_colours, width=_ENDLESS, legacy_windows=False).print(grid(rows))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def grid(rows: Sequence[Sequence[str]], *, shrink: bool = False) -> Table:
    """The same for a screen of its own. With ``shrink`` cells are cut to its width."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, show_header=True, header_style="bold", padding=(0, 2, 0, 0))
    names = max(len(plain(row[0])) for row in rows)
    for place, name in enumerate(rows[0]):
        least = None if place else names  # what a row is about stays whole: ids differ at their ends
        found.add_column(Text(name), no_wrap=True, overflow="ellipsis" if shrink else "ignore", min_width=least)
    for row in rows[1:]:
        found.add_row(*(Text(plain(cell), style=cell.style if isinstance(cell, Styled) else "") for cell in row))
    return found


def echo_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """A document on standard output, indented."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))
