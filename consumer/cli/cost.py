"""``stream-consumer cost``: what a fleet costs a month at list prices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from consumer.cli.config_file import optional_config
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit
from consumer.cli.output import Styled, echo_json, output_option, table
from consumer.settings.units import format_duration

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.cli.cost_model import Estimate
    from consumer.domain.prices import Prices

_MOST: Final = 1_000_000


@click.command("cost")
@optional_config
@click.option("--shards", type=click.IntRange(1, _MOST), default=4, help="Open shards of the stream. Default 4.")
@click.option("--workers", type=click.IntRange(1, _MOST), default=2, help="Replicas of the daemon. Default 2.")
@click.option("--rate", type=click.FloatRange(0), default=100.0, help="Records a second, all shards. Default 100.")
@click.option(
    "--record-size", type=click.IntRange(1), default=2048, metavar="BYTES", help="Of one record. Default 2048."
)
@click.option("--dead-letters", type=click.FloatRange(0), default=0.0, help="A month. Default 0.")
@click.option(
    "--kind", type=click.Choice(["dynamodb", "kinesis"]), help="The source. Default: the config's, or dynamodb."
)
@click.option("--region-factor", type=click.FloatRange(0.1, 10), default=1.0, help="Your region against us-east-1.")
@click.option(
    "--prices",
    "own_prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Your prices in place of the list's: JSON, any of its names.",
)
@click.option(
    "--lambda-ms", type=click.FloatRange(1), default=100.0, help="Of one invocation, to compare. Default 100."
)
@click.option(
    "--lambda-memory", type=click.IntRange(128), default=512, metavar="MB", help="Of the function. Default 512."
)
@output_option
def cost(
    config: Path | None,
    shards: int,
    workers: int,
    rate: float,
    record_size: int,
    dead_letters: float,
    kind: str | None,
    region_factor: float,
    own_prices: Path | None,
    lambda_ms: float,
    lambda_memory: int,
    output: str,
) -> None:
    """Estimate what reading, leases and dead letters of a fleet cost a month, and a Lambda trigger beside it.

    The figures follow the settings of --config (source.poll, checkpoint.interval, leases.duration, batch), or their
    defaults, and list prices with a date: check yours before you decide. Nothing is asked of AWS. The machines that the
    daemon runs on are not in it.
    """
    from consumer.cli.cost_model import Assumed, estimated
    from consumer.domain.fleet_cost import Fleet

    settings = None if config is None else settings_or_exit(config)
    fleet = Fleet(shards, workers, rate, record_size, dead_letters)
    seconds, gb = lambda_ms / 1000.0, lambda_memory / 1024.0
    found = estimated(Assumed(fleet, _prices_or_exit(own_prices), settings, kind, region_factor, seconds, gb))
    if output == "json":
        echo_json(found.document())
    else:
        click.echo(_as_text(found))


def _prices_or_exit(own: Path | None) -> Prices:
    """Those of the list, with those of a file in their place; exit 2 when it has none."""
    import json

    from consumer.operate.price_list import list_prices

    if own is None:
        return list_prices()
    try:
        given = json.loads(own.read_text(encoding="utf-8"))
        if not isinstance(given, dict):
            raise ValueError("it must hold one JSON object, as consumer/operate/prices.json")
        return list_prices().with_own(given)
    except (OSError, ValueError) as error:
        fail(f"--prices {click.format_filename(own)} cannot be used: {error}", EX_USAGE)


def _as_text(found: Estimate) -> str:
    assumed, fleet, prices = found.assumed, found.assumed.fleet, found.assumed.prices
    rows: list[list[str]] = [["A MONTH", "REQUESTS", "$", ""]]
    for title, group in (("stream-consumer", found.lines), ("a Lambda trigger instead", found.rival)):
        total = sum(line.dollars for line in group)
        rows.append([Styled(title, "bold"), "", Styled(f"{total:,.2f}", "bold"), ""])
        rows += [[f"  {line.what}", f"{line.requests:,.0f}", f"{line.dollars:,.2f}", line.note] for line in group]
    head = (
        f"{fleet.shards} shards, {fleet.workers} workers, {fleet.rate:g} records/s of {fleet.record_bytes} bytes, "
        f"source {assumed.source}, {'the settings of the config' if assumed.settings else 'default settings'}"
    )
    factor = f", times {assumed.region_factor:g}" if assumed.region_factor != 1 else ""
    end = f"prices of {prices.region} as of {prices.as_of}{factor}. {prices.note}".rstrip()
    return "\n".join([head, "", table(rows), "", table(_trades(found)), "", end])


def _trades(found: Estimate) -> list[list[str]]:
    rows: list[list[str]] = [["TARGET_LATENCY", "95 OF 100 READ WITHIN", "GETRECORDS", "$", ""]]
    for one in found.trades:
        mark = "configured" if one.target_latency == found.assumed.pace.target_latency else ""
        reading = [f"{one.reading.requests:,.0f}", f"{one.reading.dollars:,.2f}"]
        rows.append([format_duration(one.target_latency), f"{one.read_within:.2f} s", *reading, mark])
    return rows
