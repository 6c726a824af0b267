"""``stream-consumer init``: create the lease table once, by a role that may, so that the daemon's role need not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import answer_of, completed
from consumer.cli.config_file import config_options
from consumer.cli.failures import settings_or_exit
from consumer.domain.errors import StreamConsumerError
from consumer.domain.urls import redact_urls

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@click.command()
@config_options
@click.option(
    "--point-in-time-recovery/--no-point-in-time-recovery",
    "recovery",
    default=True,
    help="For a table that is created: on, unless the role may not turn it on, or the service has none.",
)
def init(config: Path, recovery: bool) -> None:
    """Create the lease table if it is missing, and check it if it is not.

    It is created with deletion protection, and with point-in-time recovery. A table that is there is not changed.
    """
    settings = settings_or_exit(config)
    created = answer_of(_create(settings))
    click.echo(f"lease table {settings.leases.table}: {'created' if created else 'already there, and usable'}")
    if created and recovery:
        _recoverable(settings)


def _recoverable(settings: Settings) -> None:
    """Turn point-in-time recovery on, or say that the table, which can be used as it is, has none."""
    from consumer.aws.table_backups import keep_backups
    from consumer.worker.clock import HeardClock, SystemClock

    try:
        completed(keep_backups(settings, HeardClock(SystemClock())))
    except StreamConsumerError as error:
        why = redact_urls(" ".join(str(error).split()))
        click.echo(f"warning: lease table {settings.leases.table} has no point-in-time recovery: {why}", err=True)


async def _create(settings: Settings) -> bool:
    from consumer.aws.adapters import lease_table
    from consumer.worker.clock import HeardClock, SystemClock

    async with lease_table(settings, HeardClock(SystemClock())) as store:
        return await store.prepare(create=True)
