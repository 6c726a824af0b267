"""``stream-consumer dlq redrive``: dead letters through the configured handler again, in order per key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import completed
from consumer.cli.config_file import config_options
from consumer.cli.dlq.options import (
    place_option,
    place_or_exit,
    selection_options,
)
from consumer.cli.dlq.request import Request
from consumer.cli.failures import EX_UNAVAILABLE, fail, one_line_errors, settings_or_exit
from consumer.cli.output import output_option
from consumer.domain.errors import PermissionDenied

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.letter_selection import Selection
    from consumer.redrive.parked_keys import ParkedSummary
    from consumer.redrive.redrive import Summary

EXIT_LEFT = 1


def _rate(_context: click.Context, _option: click.Parameter, value: str | None) -> float:
    """Records a second: ``10/s`` or ``10``."""
    if value is None:
        return math.inf
    try:
        rate = float(value.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise click.BadParameter("must be records a second, such as 10/s")
    return rate


@click.command()
@config_options
@place_option
@selection_options
@click.option("--rate", callback=_rate, metavar="N/s", help="Records a second at most.")
@click.option("--concurrency", type=click.IntRange(1), help="Keys at a time. Default: handler.processes.")
@click.option("--dry-run", is_flag=True, help="Say what would be done: no call, nothing deleted.")
@click.option(
    "--check",
    type=click.Choice(["source", "none"]),
    default="source",
    help="source (default): leave records that are older than their item is now.",
)
@click.option("--force", is_flag=True, help="Handle them all the same.")
@click.option(
    "--accept-loss", is_flag=True, help="Pass over letters of parked keys that are not there: their records are lost."
)
@output_option
def redrive(
    config: Path,
    place: str | None,
    which: Selection,
    limit: int | None,
    rate: float,
    concurrency: int | None,
    dry_run: bool,
    check: str,
    force: bool,
    accept_loss: bool,
    output: str,
) -> None:
    """Run dead letters through the handler of --config in this process, in order per key, several keys at once.

    A letter is deleted when each of its records was handled, and put back when not. With order: continue later changes
    of the same item have been handled since, so every item is read from the table first: a record is handled when its
    item still is as the newest of its letters left it.

    Of a redacted letter the item is read again, and handled as it is now.

    Then come parked keys (order: park_key): each as a whole, from its first letter on, while its new records go on
    coming; it is free when all are handled. --check and --force do not matter to them.

    One redrive works on a place at a time; Ctrl-C lets calls end and leaves the rest. What the handler prints goes to
    standard error. Exit code 0 when nothing was left, 1 when something was; 69, 77 and 78 as for run.
    """
    settings = settings_or_exit(config)
    request = Request(
        settings,
        place_or_exit(settings, place),
        which,
        limit,
        rate,
        concurrency or settings.handler.processes,
        dry_run,
        check == "source",
        force,
        accept_loss,
        output == "json",
    )
    from consumer.cli.dlq.redrive_run import redriven
    from consumer.cli.handler_run import output_on_stderr

    with output_on_stderr(), one_line_errors():
        try:
            summary, parked = completed(redriven(request))
        except PermissionDenied as error:
            if error.action == "dynamodb:GetItem" and request.check:
                click.echo("to redrive without a look at the items: --check none", err=True)
            raise
    _conclude(request, summary, parked)


def _conclude(request: Request, summary: Summary, parked: ParkedSummary) -> None:
    handled = summary.count("handled")
    left = len(summary.results) - handled
    verb = "would be handled" if request.dry_run else "handled"
    click.echo(
        f"{handled} letters ({summary.records_handled} records) {verb}, {left} left, of {len(summary.keys_left)} keys",
        err=request.as_json,
    )
    if parked.results:
        freed = len(parked.results) - len(parked.left)
        would = "would be freed" if request.dry_run else "freed"
        click.echo(
            f"{freed} parked keys {would} ({parked.letters_handled} letters {verb}), {len(parked.left)} left parked",
            err=request.as_json,
        )
    if parked.filtered:
        click.echo(f"{parked.filtered} of their records do not pass the filters, and no handler got them", err=True)
    if summary.fenced:
        fail("the session of this redrive was fenced: another process may go on with the rest", EX_UNAVAILABLE)
    if left or parked.left or summary.stopped or parked.stopped:
        raise SystemExit(EXIT_LEFT)
