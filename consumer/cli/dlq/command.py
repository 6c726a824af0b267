"""``stream-consumer dlq``: the dead letters of an application, one file for each verb."""

from __future__ import annotations

from typing import Final

import click

from consumer.cli.verbs import Verb, Verbs

VERBS: Final = {
    "list": Verb("consumer.cli.dlq.listing", "list_letters", "Count them by key, reason and age."),
    "show": Verb("consumer.cli.dlq.show", "show", "Show single letters."),
    "redrive": Verb("consumer.cli.dlq.redrive", "redrive", "Run them through the handler again, in order per key."),
    "purge": Verb("consumer.cli.dlq.purge", "purge", "Delete them."),
}


@click.command("dlq", cls=Verbs, verbs=VERBS)
def dlq() -> None:
    """Dead letters in SQS and S3: look at them, run them again, delete them.

    Values of records are shown with --show-values only; a key is named by its digest. Exit codes: 0 done; 1 something
    was left; 2 usage; 69 a dependency is unavailable, or another redrive works on the same place; 77 permission denied;
    78 configuration.
    """
