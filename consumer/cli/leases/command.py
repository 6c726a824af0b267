"""``stream-consumer leases``: the lease rows of an application, one file for each verb."""

from __future__ import annotations

from typing import Final

import click

from consumer.cli.verbs import Verb, Verbs

VERBS: Final = {
    "list": Verb("consumer.cli.leases.listing", "list_leases", "Who owns what, and how far it is."),
    "show": Verb("consumer.cli.leases.show", "show", "All that one row says."),
    "release": Verb("consumer.cli.leases.release", "release", "Free the leases of a dead owner."),
    "reset": Verb("consumer.cli.leases.reset", "reset", "Forget the checkpoint of a shard and of all that follow it."),
}


@click.command("leases", cls=Verbs, verbs=VERBS)
def leases() -> None:
    """Leases: who owns which shard, and what of it is settled; from the lease table alone.

    Exit codes: 0 done; 2 usage, or --yes is missing; 69 a dependency is unavailable; 77 permission denied; 78
    configuration, or a worker that lives is in the way.
    """
