"""``stream-consumer``: the commands.

Each lives in a file of its own and is imported when it is used, because the SDK takes a second to import and ``--help``
must not wait for it.
"""

from __future__ import annotations

import importlib

import click

from consumer import __version__

_COMMANDS = {
    "run": ("consumer.cli.run", "run", "Run the daemon; replicas with the same application share the work."),
    "check-config": ("consumer.cli.check_config", "check_config", "Check a config file; every error at once."),
    "schema": ("consumer.cli.schema", "schema", "Print the JSON Schema of the config file."),
    "init": ("consumer.cli.init", "init", "Create the lease table; idempotent."),
    "import-esm": (
        "consumer.cli.lambda_import.command",
        "import_event_source_mapping",
        "Turn a Lambda event source mapping into a config file.",
    ),
    "import-kcl": (
        "consumer.cli.kcl_import.command",
        "import_kcl",
        "Go on behind the checkpoints of a KCL fleet.",
    ),
    "replay": ("consumer.cli.replay", "replay", "Handle records again: from a time, a number or a letter."),
    "filter": ("consumer.cli.filter", "filter_group", "Try the filters of a config file on an event."),
    "invoke": ("consumer.cli.invoke", "invoke", "Call the handler once on an event, and say what would come next."),
    "dlq": ("consumer.cli.dlq.command", "dlq", "Dead letters: look at them, run them again, delete them."),
    "health": ("consumer.cli.health", "health", "Exit 0 if the local daemon is healthy."),
}


class LazyGroup(click.Group):
    """A click group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stream-consumer")
def main() -> None:
    """Consume the change stream of a DynamoDB table.

    Exit codes: 0 done; 2 usage; 69 a dependency stayed unavailable; 70 internal or wedged; 77 permission denied;
    78 configuration.
    """
