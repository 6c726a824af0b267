"""``stream-consumer shards``: the lineage of the stream, and how far the fleet is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.failures import settings_or_exit
from consumer.cli.output import Styled, echo_json, output_option, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.fleet_rows import FleetRows
    from consumer.domain.outside_lag import ShardLag
    from consumer.domain.shard_tree import TreeLine
    from consumer.settings.model import Settings

_STYLES: Final = {"quarantined": "bold red", "halted": "bold red", "deferred": "yellow", "open": "green"}


class _Found(NamedTuple):
    fleet: FleetRows
    lines: Sequence[TreeLine]
    states: Mapping[str, str]
    lags: Mapping[str, ShardLag]


@click.command("shards")
@config_options
@click.option("--all", "finished", is_flag=True, help="Also the shards that are done, or gone.")
@click.option("--no-lag", is_flag=True, help="Do not read the stream: no lag.")
@output_option
def shards(config: Path, finished: bool, no_lag: bool, output: str) -> None:
    """Show the shards as a tree, parents above their children, with owner and lag.

    STATE is that of the lease: waiting for parents, open, deferred (read to its end, but some keys wait), draining
    (settled, its children are not visible yet), done, halted (records were trimmed), quarantined (its row cannot be
    read); new is listed and has no lease yet, gone has left the stream. Finished generations are only counted, unless
    --all. LAG is measured as by `stream-consumer lag`.
    """
    settings = settings_or_exit(config)
    found = answer_of(_read(settings, finished=finished, with_lag=not no_lag))
    if output == "json":
        echo_json(_document(found))
    else:
        click.echo(_as_text(found, finished=finished))


async def _read(settings: Settings, *, finished: bool, with_lag: bool) -> _Found:
    from consumer.cli import reach
    from consumer.cli.fleet_reading import fleet_rows, the_source
    from consumer.cli.lag_reading import lag_meter
    from consumer.domain.shard_tree import states_of, tree

    async with reach.reached(settings) as there:
        fleet = await fleet_rows(there)
        source = await the_source(there, fleet.stream_id)
        listed = await source.list_shards()
        meter = await lag_meter(there, source, fleet.label)
        lags = await meter.measure(fleet.leases) if with_lag else []
    lines = tree(listed, fleet.leases, finished=finished)
    return _Found(fleet, lines, states_of(listed, fleet.leases), {one.shard_id: one for one in lags})


def _document(found: _Found) -> dict[str, Any]:
    shown = []
    for line in found.lines:
        row, lag = found.fleet.leases.get(line.shard_id), found.lags.get(line.shard_id)
        worst = None if lag is None else lag.worst
        shown.append(
            {
                "shard_id": line.shard_id,
                "state": line.state,
                "parents": list(line.parents),
                "listed": line.listed,
                "owner": None if row is None else row.owner,
                "lag_seconds": None if worst is None else round(worst, 3),
                "note": "" if row is None else row.corrupt or row.note,
            }
        )
    states = dict(Counter(found.states.values()))
    return {
        "application": found.fleet.application,
        "stream_id": found.fleet.stream_id,
        "states": states,
        "shards": shown,
    }


def _as_text(found: _Found, *, finished: bool) -> str:
    from consumer.cli.lag_reading import lag_text
    from consumer.cli.leases.rows import owner_text
    from consumer.domain.shard_tree import OVER

    rows: list[list[str]] = [["SHARD", "STATE", "OWNER", "LAG", "NOTE"]]
    for line in found.lines:
        row = found.fleet.leases.get(line.shard_id)
        notes = [f"also of {other}" for other in line.others]
        if not line.listed and line.state not in OVER:
            notes.append("is not listed (any more)")
        if row is not None and (row.corrupt or row.note):
            notes.append(row.corrupt or row.note)
        owner = "-" if row is None or row.finished else owner_text(found.fleet, row)
        state = Styled(line.state, _STYLES.get(line.state, "dim" if line.state in OVER else ""))
        lag = lag_text(found.lags.get(line.shard_id))
        rows.append([line.branch + line.shard_id, state, owner, lag, "; ".join(notes)])
    counts = Counter(found.states.values())
    over = sum(counts[state] for state in OVER)
    hidden = " (--all shows those that are over)" if over and not finished else ""
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
    summary = f"{len(found.states)} shards: {states}{hidden}"
    return "\n".join([*([table(rows)] if len(rows) > 1 else []), summary])
