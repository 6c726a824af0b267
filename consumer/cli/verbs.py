"""Groups of verbs, each of which is imported when it is used: the SDK takes a second to import, the configuration a
quarter, and neither ``--help`` nor a typing error must wait for them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

_SUGGESTIONS = 3


class Verb(NamedTuple):
    """Where a command is, and what it does, in a line."""

    module: str
    attribute: str
    text: str


class Verbs(click.Group):
    """A click group of ``verbs`` by their names. A wrong one is answered with those that are nearly the same."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **options: Any) -> None:
        super().__init__(*args, **options)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        verb = self._verbs[cmd_name]
        command: click.Command = getattr(importlib.import_module(verb.module), verb.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self._verbs and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, self._verbs, _SUGGESTIONS)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.text) for name, verb in self._verbs.items()])
