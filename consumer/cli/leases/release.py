"""``stream-consumer leases release``: frees the leases of owners that are dead."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit
from consumer.cli.output import echo_json, output_option, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.cli.reach import Reach
    from consumer.domain.fleet_rows import FleetRows
    from consumer.domain.lease import LeaseRow
    from consumer.settings.model import Settings


class _Result(NamedTuple):
    """``chosen`` have an owner; ``released``: shards; None: nothing was to be written."""

    fleet: FleetRows
    chosen: list[LeaseRow]
    released: list[str] | None


@click.command("release")
@config_options
@click.option("--shard", "shards", multiple=True, metavar="SHARD", help="Only this one; may be repeated.")
@click.option("--yes", is_flag=True, help="Write it.")
@output_option
def release(config: Path, shards: tuple[str, ...], yes: bool, output: str) -> None:
    """Clear the owner of leases whose owner is dead, so that any worker takes them at once. Checkpoints stay.

    Workers do this by themselves as soon as a session is silent for its own duration: it is for leases that stay with a
    dead owner while no worker may take them. Without --yes the rows are shown and nothing is written. With it the
    sessions of the owners are watched for 1.1 times their leases.duration, then fenced, so that none of them can come
    back.

    Exit code 0 when they are free; 2 without --yes; 78 when an owner lives: nothing is changed then.
    """
    settings = settings_or_exit(config)
    result = answer_of(_released(settings, frozenset(shards), is_meant=yes))
    _show(result, output)
    if result.released is not None:
        click.echo(f"{len(result.released)} leases are free", err=True)
    elif result.chosen:
        fail(f"nothing was written: add --yes to free {len(result.chosen)} leases, if their owners are dead", EX_USAGE)


async def _released(settings: Settings, shards: frozenset[str], *, is_meant: bool) -> _Result:
    from consumer.cli import reach
    from consumer.cli.fleet_reading import fleet_rows
    from consumer.domain.errors import MisconfiguredResource

    async with reach.reached(settings) as there:
        fleet = await fleet_rows(there)
        unknown = shards - fleet.leases.keys()
        if unknown:
            raise MisconfiguredResource(f"{', '.join(sorted(unknown))} has no lease: see `stream-consumer leases list`")
        rows = [fleet.leases[shard_id] for shard_id in sorted(shards or fleet.leases)]
        chosen = [row for row in rows if row.owner is not None and not row.finished]
        if not is_meant or not chosen:
            return _Result(fleet, chosen, [] if is_meant else None)
        return _Result(fleet, chosen, await _free(there, fleet, chosen))


async def _free(there: Reach, fleet: FleetRows, chosen: list[LeaseRow]) -> list[str]:
    from consumer.redrive.session import RedriveSession
    from consumer.worker.fleet.stopped_fleet import require_stopped
    from consumer.worker.process_name import process_name

    store, clock, duration = there.store, there.clock, there.settings.leases.duration
    owners = {row.owner for row in chosen if row.owner is not None}
    purpose = "release their leases (a worker that is stopped releases them itself)"
    await require_stopped(store, clock, duration, owners, purpose, _waiting, there.sleep, only_owners=True)
    session = RedriveSession(store, clock, process_name(), uuid.uuid4().hex, duration)
    freed = []
    async with session.opened():
        for row in chosen:
            session.require()
            held = await store.take(fleet.label, row, session.incarnation, uuid.uuid4().hex)
            if held is not None:  # otherwise a worker has taken it meanwhile, which is as good
                await store.release(fleet.label, held)
                freed.append(row.shard_id)
        await session.ask_owners_to_look()
    return freed


def _waiting(seconds: float) -> None:
    click.echo(f"looking for {seconds:g} s whether the owners still live", err=True)


def _show(result: _Result, output: str) -> None:
    from consumer.cli.leases.rows import checkpoint_of, lease_document, owner_text, state_cell

    fleet = result.fleet
    if output == "json":
        rows = [lease_document(fleet, row) for row in result.chosen]
        echo_json({"application": fleet.application, "released": result.released, "leases": rows})
    elif not result.chosen:
        click.echo("no lease of them has an owner")
    else:
        shown = [["SHARD", "STATE", "OWNER", "CHECKPOINT"]]
        shown += [[row.shard_id, state_cell(row), owner_text(fleet, row), checkpoint_of(row)] for row in result.chosen]
        click.echo(table(shown))
