"""``stream-consumer``: the commands. Each lives in a file of its own, and is imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from consumer import __version__
from consumer.cli.verbs import Verb, Verbs

VERBS: Final = {
    "run": Verb("consumer.cli.run", "run", "Run the daemon; replicas with the same application share the work."),
    "check-config": Verb("consumer.cli.check_config", "check_config", "Check a config file; every error at once."),
    "schema": Verb("consumer.cli.schema", "schema", "Print the JSON Schema of the config file."),
    "init": Verb("consumer.cli.init", "init", "Create the lease table; idempotent."),
    "leases": Verb("consumer.cli.leases.command", "leases", "Leases: list, show, release and reset them."),
    "shards": Verb("consumer.cli.shards", "shards", "The lineage of the stream as a tree, with owner and lag."),
    "lag": Verb("consumer.cli.lag", "lag", "Lag per shard and in total; --watch."),
    "tail": Verb("consumer.cli.tail", "tail", "Print the records of the stream as they come, without leases."),
    "top": Verb("consumer.cli.top", "top", "The fleet live in the terminal; --once."),
    "import-esm": Verb(
        "consumer.cli.lambda_import.command",
        "import_event_source_mapping",
        "Turn a Lambda event source mapping into a config file.",
    ),
    "import-kcl": Verb("consumer.cli.kcl_import.command", "import_kcl", "Go on behind the checkpoints of a KCL fleet."),
    "replay": Verb("consumer.cli.replay", "replay", "Handle records again: from a time, a number or a letter."),
    "filter": Verb("consumer.cli.filter", "filter_group", "Try the filters of a config file on an event."),
    "invoke": Verb("consumer.cli.invoke", "invoke", "Call the handler once on an event, and say what would come next."),
    "dlq": Verb("consumer.cli.dlq.command", "dlq", "Dead letters: look at them, run them again, delete them."),
    "cost": Verb("consumer.cli.cost", "cost", "What reading, leases and dead letters cost a month."),
    "health": Verb("consumer.cli.health", "health", "Exit 0 if the local daemon is healthy."),
    "completion": Verb("consumer.cli.completion", "completion", "Print the completion script of a shell."),
}


@click.command(cls=Verbs, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="stream-consumer")
def main() -> None:
    """Consume the change stream of a DynamoDB table.

    Exit codes: 0 done; 1 something was left, as the verb says; 2 usage; 69 a dependency stayed unavailable; 70 internal
    or wedged; 77 permission denied; 78 configuration.
    """
