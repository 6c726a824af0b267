"""``stream-consumer leases show``: all that one row says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_and
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit
from consumer.cli.output import echo_json, output_option, plain, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@click.command("show")
@config_and("shard_id", "SHARD")
@output_option
def show(config: Path, shard_id: str | None, output: str) -> None:
    """Show the lease of SHARD: its checkpoint, every stretch that is settled above it, every deferred and parked key.

    Keys are named by their digests, as in logs, letters and `dlq list`.
    """
    if shard_id is None:
        raise click.UsageError("give the id of a shard, as `stream-consumer leases list` shows it")
    settings = settings_or_exit(config)
    found = answer_of(_read(settings, shard_id))
    if found is None:
        fail(f"{shard_id} has no lease: see `stream-consumer leases list --all`", EX_USAGE)
    if output == "json":
        echo_json(found)
    else:
        click.echo(_as_text(found))


async def _read(settings: Settings, shard_id: str) -> dict[str, Any] | None:
    from consumer.cli import reach
    from consumer.cli.fleet_reading import fleet_rows
    from consumer.cli.leases.rows import lease_document

    async with reach.reached(settings) as there:
        fleet = await fleet_rows(there)
    return lease_document(fleet, fleet.leases[shard_id]) if shard_id in fleet.leases else None


def _as_text(found: dict[str, Any]) -> str:
    lines = []
    for name, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [[str(field).upper() for field in value[0]]]
            rows += [["-" if cell is None else str(cell) for cell in one.values()] for one in value]
            lines += [f"{name}: {len(value)}", *(f"  {line}" for line in table(rows).splitlines())]
        else:
            lines.append(f"{name:<15}{_in_a_line(value)}")
    return "\n".join(lines)


def _in_a_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell or '-'}" for key, cell in value.items())
    text = ", ".join(value) if isinstance(value, list) else value
    return "-" if text in (None, "", False) else plain(str(text))
