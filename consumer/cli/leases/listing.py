"""``stream-consumer leases list``: who owns what, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.failures import settings_or_exit
from consumer.cli.output import Styled, echo_json, output_option, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.fleet_rows import FleetRows
    from consumer.settings.model import Settings


@click.command("list")
@config_options
@click.option("--all", "finished", is_flag=True, help="Also leases of shards that are done.")
@output_option
def list_leases(config: Path, finished: bool, output: str) -> None:
    """List the leases: state, owner, checkpoint, what is settled above it, deferred and parked keys.

    CHECKPOINT is the number up to which all is settled, ABOVE counts the stretches that are settled beyond it. An owner
    is marked when its session is fenced or gone: it is dead, and a worker takes its leases within seconds.
    """
    settings = settings_or_exit(config)
    found = answer_of(_read(settings))
    if output == "json":
        from consumer.cli.leases.rows import fleet_document

        echo_json(fleet_document(found, finished=finished))
    else:
        click.echo(_as_text(found, finished=finished))


async def _read(settings: Settings) -> FleetRows:
    from consumer.cli import reach
    from consumer.cli.fleet_reading import fleet_rows

    async with reach.reached(settings) as there:
        return await fleet_rows(there)


def _as_text(fleet: FleetRows, *, finished: bool) -> str:
    from consumer.cli.fleet_reading import short_owner, utc
    from consumer.cli.leases.rows import checkpoint_of, owner_text, state_cell

    rows: list[list[str]] = [
        ["SHARD", "STATE", "OWNER", "EPOCH", "CHECKPOINT", "ABOVE", "DEFERRED", "PARKED", "WRITTEN", "NOTE"]
    ]
    for row in fleet.in_order(finished=finished):
        counts = (len(row.frontier.runs), len(row.frontier.deferred), fleet.parked_keys(row.shard_id))
        runs, deferred, parked = (Styled(str(n), "yellow") if n else "-" for n in counts)
        cells = [row.shard_id, state_cell(row), owner_text(fleet, row), str(row.epoch), checkpoint_of(row)]
        rows.append([*cells, runs, deferred, parked, utc(row.updated_at), row.corrupt or row.note])
    workers = [["WORKER", "LEASES", "STARTED", "SESSION"]]
    for one in sorted(fleet.sessions, key=lambda session: session.started_at):
        state = Styled("fenced", "red") if one.fenced else "leaving" if one.leaving else "open"
        workers.append([short_owner(one.incarnation), str(fleet.owned_by(one.incarnation)), utc(one.started_at), state])
    parts = [table(rows)] if len(rows) > 1 else []
    parts += ["", table(workers), ""] if len(workers) > 1 else [""]
    return "\n".join([*parts, _summary(fleet, finished=finished)]).lstrip("\n")


def _summary(fleet: FleetRows, *, finished: bool) -> str:
    states = fleet.states()
    listed = ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"
    hidden = " (--all lists them)" if states.get("done") and not finished else ""
    unfinished = [row for row in fleet.leases.values() if not row.finished]
    free = sum(fleet.owner_state(row) != "session" for row in unfinished)
    parked = f"; {len(fleet.parked)} keys parked" if fleet.parked else ""
    return f"{fleet.application}: {listed}{hidden}; {free} of {len(unfinished)} free{parked}"
