"""``stream-consumer lag``: how far the fleet is behind, measured from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.durations import seconds_option
from consumer.cli.failures import settings_or_exit
from consumer.cli.output import Styled, echo_json, output_option, table

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.outside_lag import ShardLag
    from consumer.settings.model import Settings

_LEAST: Final = 2.0  # seconds between two looks: each reads every shard


@click.command("lag")
@config_options
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@seconds_option("--interval", default="10s", least=_LEAST, help="Between two looks of --watch. Default 10s, least 2s.")
@click.option("--all", "every", is_flag=True, help="Also the shards at the tip.")
@output_option
def lag(config: Path, watch: bool, interval: float, every: bool, output: str) -> None:
    """Show the lag of every shard and of the fleet: the age of the oldest record that is not settled.

    It is measured from outside: from the checkpoint in the lease row, and from the record behind it in the stream. So
    it is an upper bound, too large by what the owner has settled since its last checkpoint (checkpoint.interval). What
    cannot be known is "?", null in JSON, and never 0. With --watch and JSON there is a line for each look.

    Each look reads a shard once, at the tip three times, half a second apart: reads that count against the five a
    second that a shard has.
    """
    settings = settings_or_exit(config)
    good_end = (KeyboardInterrupt,) if watch else ()
    with suppress(*good_end):
        answer_of(_looks(settings, interval if watch else None, every=every, as_json=output == "json"))


async def _looks(settings: Settings, interval: float | None, *, every: bool, as_json: bool) -> None:
    from consumer.cli import reach
    from consumer.cli.fleet_reading import fleet_rows, the_source
    from consumer.cli.lag_reading import lag_meter
    from consumer.domain.errors import DependencyError

    async with reach.reached(settings) as there:
        while True:
            try:
                fleet = await fleet_rows(there)
                meter = await lag_meter(there, await the_source(there, fleet.stream_id), fleet.label)
                _show(
                    settings,
                    await meter.measure(fleet.leases),
                    every=every,
                    as_json=as_json,
                    again=interval is not None,
                )
            except DependencyError as error:
                if interval is None:
                    raise
                click.echo(f"{error}: looking again in {interval:g} s", err=True)
            if interval is None:
                return
            await there.sleep(interval)


def _show(settings: Settings, lags: Sequence[ShardLag], *, every: bool, as_json: bool, again: bool) -> None:
    document = _document(settings, lags)
    if not as_json:
        if again and sys.stdout.isatty():
            click.clear()
        click.echo(_as_text(lags, document, every=every))
    elif again:
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        echo_json(document)


def _document(settings: Settings, lags: Sequence[ShardLag]) -> dict[str, Any]:
    from consumer.domain.outside_lag import FleetLag

    total = FleetLag.of(lags)
    return {
        "application": settings.application,
        "lag_seconds": _rounded(total.seconds),
        "unknown_shards": total.unknown,
        "shards_behind": total.behind,
        "shards": [
            {
                "shard_id": one.shard_id,
                "state": one.state,
                "lag_seconds": _rounded(one.worst),
                "deferred_lag_seconds": _rounded(one.deferred),
                "detail": one.detail,
            }
            for one in lags
        ],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _as_text(lags: Sequence[ShardLag], document: dict[str, Any], *, every: bool) -> str:
    from consumer.cli.lag_reading import lag_text, unknown_first

    rows: list[list[str]] = [["SHARD", "LAG", "DEFERRED", "STATE", ""]]
    for one in unknown_first(lags):
        if every or one.worst != 0:
            deferred = "-" if one.deferred is None else Styled(f"{one.deferred:.1f}s", "yellow")
            text = lag_text(one)
            rows.append([one.shard_id, Styled(text, "red") if text == "?" else text, deferred, one.state, one.detail])
    hidden = len(lags) + 1 - len(rows)
    parts = [table(rows)] if len(rows) > 1 else []
    if hidden:
        parts.append(f"{hidden} shards are at the tip (--all lists them)")
    total, unknown = document["lag_seconds"], document["unknown_shards"]
    text = "not known" if total is None else f"{'at least ' if unknown else 'at most '}{total:.1f}s"
    parts.append(f"{document['application']}: lag {text}" + (f", not known of {unknown} shards" if unknown else ""))
    return "\n".join(parts)
