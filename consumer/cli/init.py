"""``stream-consumer init``: create the lease table once, by a role that may, so that the daemon's role need not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import completed
from consumer.cli.config_file import config_options
from consumer.cli.failures import one_line_errors, settings_or_exit

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@click.command()
@config_options
def init(config: Path) -> None:
    """Create the lease table if it is missing, and check it if it is not."""
    settings = settings_or_exit(config)
    with one_line_errors():
        created = completed(_create(settings))
    click.echo(f"lease table {settings.leases.table}: {'created' if created else 'already there, and usable'}")


async def _create(settings: Settings) -> bool:
    from consumer.aws.adapters import lease_table
    from consumer.worker.clock import HeardClock, SystemClock

    async with lease_table(settings, HeardClock(SystemClock())) as store:
        return await store.prepare(create=True)
