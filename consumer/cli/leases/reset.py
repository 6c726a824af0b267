"""``stream-consumer leases reset``: forgets how far shards are."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.failures import EX_CONFIG, EX_USAGE, fail, settings_or_exit
from consumer.cli.output import echo_json, output_option, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.replay_start import ReplayStart
    from consumer.replay.survey import Survey
    from consumer.settings.model import Settings


class _Result(NamedTuple):
    """``written``: rows; None when nothing was to be written."""

    found: Survey
    written: int | None


@click.command("reset")
@config_options
@click.option("--shard", "shards", multiple=True, metavar="SHARD", help="This shard and all that come after it.")
@click.option("--all", "every", is_flag=True, help="Every shard.")
@click.option("--yes", is_flag=True, help="Write it.")
@output_option
def reset(config: Path, shards: tuple[str, ...], every: bool, yes: bool, output: str) -> None:
    """Forget the checkpoint of shards: each starts from source.starting_position of this config, as if never read.

    With a shard go all of its descendants, or the order of keys would be lost. What the rows hold is given up, also
    what keeps a shard halted or quarantined; to handle records again that were handled, `replay` is more careful:
    nothing that was never handled is left out by it. Without --yes the rows are shown and nothing is written.

    Exit code 0 when the rows are written; 2 without --yes; 78 while a worker of the application lives (its session is
    watched for 1.1 times its duration), while keys are parked, or when a shard has left the stream.
    """
    if bool(shards) == every:
        raise click.UsageError("give --shard SHARD (it may be repeated), or --all")
    settings = settings_or_exit(config)
    result = answer_of(_reset(settings, frozenset(shards), is_meant=yes), "replay.written")
    _show(settings, result, output)
    plan = result.found.plan
    if plan.problems:
        for problem in plan.problems[:-1]:
            click.echo(f"stream-consumer: {problem}", err=True)
        fail(plan.problems[-1], EX_CONFIG)
    if result.written is None:
        fail(f"nothing was written: add --yes to reset {len(plan.rows)} rows", EX_USAGE)
    click.echo(f"{result.written} rows written", err=True)


async def _reset(settings: Settings, shards: frozenset[str], *, is_meant: bool) -> _Result:
    from consumer.cli import reach
    from consumer.domain.replay import Position, plan_reset
    from consumer.replay.run import in_place
    from consumer.replay.survey import Survey, stream_of

    async with reach.reached(settings) as there:
        source, stream = await stream_of(there.source, there.store)
        rows = {row.shard_id: row for row in await there.store.leases(stream.label)}
        start = _start(settings, stream.server_time)
        plan = plan_reset(start, shards, await source.list_shards(), rows)
        found = Survey(source, stream, Position(start.since), plan, rows)
        if not is_meant or plan.problems:
            return _Result(found, None)
        words, duration = f"reset to {_words(settings)}", settings.leases.duration
        written = await in_place(
            there.store, there.clock, duration, found, words, _waiting, there.sleep, purpose="reset the leases"
        )
        return _Result(found, written)


def _start(settings: Settings, now: float) -> ReplayStart:
    from consumer.domain.replay_start import ReplayStart

    position = settings.source.starting_position
    if position == "trim_horizon":
        return ReplayStart(0.0)
    since = position.timestamp() if isinstance(position, dt.datetime) else float(int(now))
    return ReplayStart(since, older_settled=True)


def _words(settings: Settings) -> str:
    position = settings.source.starting_position
    return position.isoformat() if isinstance(position, dt.datetime) else position


def _waiting(seconds: float) -> None:
    click.echo(f"looking for {seconds:g} s whether workers still run", err=True)


def _show(settings: Settings, result: _Result, output: str) -> None:
    from consumer.cli.leases.rows import checkpoint_of, state_cell
    from consumer.domain.fleet_rows import state_of

    plan = result.found.plan
    if output == "json":
        rows: list[dict[str, Any]] = [
            {
                "shard_id": one.shard_id,
                "state": state_of(one.before) if one.before else None,
                "checkpoint": one.before.frontier.low if one.before else None,
                "note": one.note,
            }
            for one in plan.rows
        ]
        document = {"application": settings.application, "to": _words(settings), "written": result.written}
        echo_json(document | {"rows": rows, "left": list(plan.left), "problems": list(plan.problems)})
        return
    shown = [["SHARD", "STATE NOW", "CHECKPOINT NOW", "THEN", "NOTE"]]
    for one in plan.rows:
        now = ["-", "-"] if one.before is None else [state_cell(one.before), checkpoint_of(one.before)]
        shown.append([one.shard_id, *now, f"from {_words(settings)}", one.note])
    click.echo(table(shown))
    if plan.left:
        click.echo(f"{len(plan.left)} shards left the stream and stay as they are: {', '.join(plan.left[:3])}")
