"""What a redrive shows while it works: lines of JSON, or a bar where somebody sees it and a line for what was left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from consumer.cli.dlq.text import key_name, letter_id
from consumer.cli.output import plain
from consumer.redrive.parked import KeyResult
from consumer.redrive.redrive import LetterResult


class Progress:
    """Is told of each letter, of letters of parked keys while they are handled, and of each parked key in the end."""

    def __init__(self, *, as_json: bool, dry_run: bool, advance: Callable[[int], None]) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._advance = advance

    def letter(self, result: LetterResult) -> None:
        found = result.found
        if self._as_json:
            would = self._dry_run and result.result == "handled"
            self._line(
                letter=letter_id(found),
                name=found.name,
                key=key_name(found),
                records=found.letter.count,
                result="would_be_handled" if would else result.result,
                reason=result.reason or None,
            )
        elif result.reason:
            click.echo(plain(f"left: {letter_id(found)} (key {key_name(found)}) {result.reason}"), err=True)
        self._advance(1)

    def parked_letters(self, count: int) -> None:
        self._advance(count)

    def key(self, result: KeyResult) -> None:
        if self._as_json:
            free = "would_be_freed" if self._dry_run else "freed"
            self._line(
                parked_key=result.digest,
                letters=result.handled,
                result="left" if result.left else free,
                why=result.left,
                reason=result.detail or None,
            )
        elif result.left:
            click.echo(plain(f"left parked: key {result.digest} ({result.left}): {result.detail}"), err=True)

    @staticmethod
    def _line(**fields: Any) -> None:
        click.echo(json.dumps(fields, ensure_ascii=False))


def _nothing(_count: int) -> None:
    pass


@contextmanager
def shown_progress(length: int, *, as_json: bool, dry_run: bool) -> Iterator[Progress]:
    """``length``: letters to come. New letters of parked keys may come on top."""
    if as_json or not sys.stderr.isatty():
        yield Progress(as_json=as_json, dry_run=dry_run, advance=_nothing)
    else:
        with click.progressbar(length=length, label="letters", file=sys.stderr) as bar:
            yield Progress(as_json=as_json, dry_run=dry_run, advance=bar.update)
