"""``stream-consumer dlq``: the dead letters of an application, one file for each verb."""

from __future__ import annotations

import importlib

import click

_VERBS = {
    "list": ("consumer.cli.dlq.listing", "list_letters", "Count them by key, reason and age."),
    "show": ("consumer.cli.dlq.show", "show", "Show single letters."),
    "redrive": ("consumer.cli.dlq.redrive", "redrive", "Run them through the handler again, in order per key."),
    "purge": ("consumer.cli.dlq.purge", "purge", "Delete them."),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, attribute, _ = _VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _VERBS.items()])


@click.command("dlq", cls=_Verbs)
def dlq() -> None:
    """Dead letters in SQS and S3: look at them, run them again, delete them.

    Values of records are shown with --show-values only; a key is named by its digest. Exit codes: 0 done; 1 something
    was left; 2 usage; 69 a dependency is unavailable, or another redrive works on the same place; 77 permission denied;
    78 configuration.
    """
