"""``stream-consumer import-kcl``: what a fleet of the Kinesis Client Library has processed becomes this application's;
and the properties file of a MultiLangDaemon as a configuration file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import optional_config, the_config_file
from consumer.cli.durations import seconds_option
from consumer.cli.failures import EX_CONFIG, EX_USAGE, fail, settings_or_exit
from consumer.cli.output import output_option

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.cli.kcl_import.survey import Request, Survey
    from consumer.settings.kinds import StartingPosition

_LEAST_WAIT = 1.0  # seconds


def _starting_position(_context: click.Context, _option: click.Parameter, value: str | None) -> StartingPosition | None:
    from consumer.settings.errors import Refused
    from consumer.settings.kinds import POSITION

    try:
        found: StartingPosition | None = None if value is None else POSITION.check(value)
    except Refused as error:
        raise click.BadParameter(str(error)) from error
    return found


@click.command("import-kcl")
@optional_config
@click.option("--table", help="The KCL's lease table, by name or ARN; its name is that of the KCL's application.")
@click.option("--table-region", help="The region of that table, if it is not that of the stream.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--yes", is_flag=True, help="Write it.")
@seconds_option(
    "--failover-time",
    default="10s",
    least=_LEAST_WAIT,
    help="failoverTimeMillis of the KCL: how long to watch whether its fleet still works. Default 10s.",
)
@click.option(
    "--without-checkpoint",
    "start",
    metavar="POSITION",
    callback=_starting_position,
    help="Where shards begin that the KCL leased at LATEST or AT_TIMESTAMP and never checkpointed: trim_horizon, "
    "latest, or a time.",
)
@click.option(
    "--caught-up",
    is_flag=True,
    help="The old fleet had processed everything when it was stopped: where a checkpoint's record was trimmed since, "
    "nothing was lost.",
)
@output_option
@click.option(
    "--properties",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A properties file of the MultiLangDaemon: print it as a config file, and do nothing else.",
)
def import_kcl(
    config: Path | None,
    table: str | None,
    table_region: str | None,
    dry_run: bool,
    yes: bool,
    failover_time: float,
    start: StartingPosition | None,
    caught_up: bool,
    output: str,
    properties: Path | None,
) -> None:
    """Write this application's lease rows at the checkpoints of a KCL fleet that has been stopped.

    With --table: the lease table of the KCL 1.x to 3.x, or of the DynamoDB Streams Kinesis adapter, is read twice, as
    far apart as the KCL's failover time, and never written. Without --yes, and with --dry-run, nothing is written at
    all. With --properties: the file as a configuration, on standard output; what does not carry over by itself goes to
    standard error and into the file.

    Exit code 0 when the rows are written, or were there before, and after a --dry-run that shows what --yes would do;
    2 without --yes; 78 when a fleet still works, the application has gone on already, or the table does not fit;
    69 and 77 as for run.
    """
    if properties is not None:
        if table is not None or config is not None:
            raise click.UsageError("--properties prints a config file: it goes with neither --table nor --config")
        _print_configuration(properties)
        return
    path = the_config_file(config, None)
    if table is None:
        raise click.UsageError("give the KCL's lease table with --table, or its properties file with --properties")
    if dry_run and yes:
        raise click.UsageError("--dry-run writes nothing: it does not go with --yes")
    settings = settings_or_exit(path)

    from consumer.cli.kcl_import.survey import Request

    request = Request(settings, table, failover_time, start, caught_up)
    found, written = answer_of(_imported(request, table_region, is_meant=yes))
    _show(request, found, written, output)
    if found.refusals:
        _refuse(found)
    if dry_run:
        click.echo("nothing was written (--dry-run)", err=True)
    elif written is None:
        fail(f"nothing was written: add --yes to write {len(found.missing)} rows", EX_USAGE)
    else:
        click.echo(f"{written} rows written, {len(found.there)} were there; `stream-consumer run` goes on", err=True)


async def _imported(request: Request, table_region: str | None, *, is_meant: bool) -> tuple[Survey, int | None]:
    """What was found, and how many rows were written; None when they were not to be."""
    from consumer.aws.adapters import MainAdapters
    from consumer.aws.kcl_table import kcl_table
    from consumer.cli.kcl_import.survey import Reach, survey
    from consumer.cli.kcl_import.writing import write
    from consumer.worker.clock import HeardClock, SystemClock

    clock = HeardClock(SystemClock())
    async with (
        MainAdapters(request.settings, lambda *_: None, clock) as adapters,
        kcl_table(request.settings, clock, request.table, table_region) as kcl,
    ):
        reach = Reach(adapters.source, adapters.store, kcl, clock, _waiting)
        found = await survey(request, reach)
        return found, await write(request, reach, found) if is_meant and not found.refusals else None


def _waiting(seconds: float) -> None:
    click.echo(f"looking for {seconds:g} s whether a fleet still works", err=True)


def _show(request: Request, found: Survey, written: int | None, output: str) -> None:
    from consumer.cli.kcl_import.report import as_json, as_text

    click.echo(as_json(request, found, written) if output == "json" else as_text(request, found))


def _refuse(found: Survey) -> NoReturn:
    for refusal in found.refusals[:-1]:
        click.echo(f"stream-consumer: {refusal}", err=True)
    fail(found.refusals[-1], EX_CONFIG)


def _print_configuration(properties: Path) -> None:
    from consumer.cli.kcl_import.java_properties import MalformedProperties, parse_properties
    from consumer.cli.kcl_import.multilang import configuration_of

    name = "standard input" if str(properties) == "-" else click.format_filename(properties)
    try:
        raw = sys.stdin.buffer.read() if str(properties) == "-" else properties.read_bytes()
        found = parse_properties(raw)
    except OSError as error:
        fail(f"{name}: cannot be read: {error.strerror or error}", EX_CONFIG)
    except MalformedProperties as error:
        fail(f"{name}: {error}", EX_CONFIG)
    yaml, notes = configuration_of(found)
    click.echo(yaml, nl=False)
    for line in ["What does not carry over by itself:", *(f"  {note}" for note in notes)] if notes else []:
        click.echo(line, err=True)
