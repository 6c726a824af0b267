"""``stream-consumer tail``: the records of the stream as they come."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.durations import position_or_ago
from consumer.cli.failures import settings_or_exit

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.stream_record import StreamRecord
    from consumer.settings.model import Settings


@click.command("tail")
@config_options
@click.option(
    "--from", "since", metavar="TIME", default="latest", help="latest (default), trim_horizon, a time, or 45m."
)
@click.option("--shard", "shards", multiple=True, metavar="SHARD", help="This shard and all that come after it.")
@click.option("--limit", type=click.IntRange(1), help="End after so many records.")
@click.option("--filters", "filtered", is_flag=True, help="Only records that pass the filters of the config.")
def tail(config: Path, since: str, shards: tuple[str, ...], limit: int | None, filtered: bool) -> None:
    """Print records, one JSON object a line, as Lambda's event has them; until Ctrl-C, or --limit.

    The stream is read beside the daemon, without leases, and nothing is written: splits are followed, a shard comes
    after its parents. What on_failure.redact names is taken out of the images. A shard has five reads a second, and
    DynamoDB wants no more than two readers of it: tail takes two reads a second at most, one at the tip; leave it
    running beside a fleet that is behind, and the fleet gets there later.

    Exit code 0 after --limit, Ctrl-C, or when whoever reads the output has enough; 2 for a shard that is not there; 69
    and 77 as for run.
    """
    settings = settings_or_exit(config)
    start = position_or_ago(since)
    try:
        with suppress(KeyboardInterrupt):
            answer_of(_tail(settings, start, frozenset(shards), limit, filtered=filtered))
        sys.stdout.flush()
    except* BrokenPipeError:
        leave_stdout()


def leave_stdout() -> None:
    """So that the interpreter does not fail once more when it flushes."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_read() -> bool:
    """Whether anybody can read standard output still: `tail | head` is to end when head does, not with the next record,
    which may be hours away."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # no file
        return True
    looked = select.poll()
    looked.register(descriptor, 0)
    return not any(event & select.POLLERR for _, event in looked.poll(0))


async def _tail(
    settings: Settings, since: float | None, shards: frozenset[str], limit: int | None, *, filtered: bool
) -> None:
    from consumer.cli import reach
    from consumer.cli.tailing import Tail

    async with reach.reached(settings) as there:
        await Tail(there, _printer(settings, filtered=filtered), limit, is_read).run(since, shards)


def _printer(settings: Settings, *, filtered: bool) -> Callable[[StreamRecord], bool]:
    """Prints a record, unless the filters leave it out; whether it did."""
    from consumer.domain.events import event_json

    filters = settings.compiled_filters() if filtered else None
    redaction = settings.on_failure.redaction

    def show(record: StreamRecord) -> bool:
        if filters and not filters.matches(record):
            return False
        shown = record if redaction is None else redaction.records([record]).records[0]
        click.echo(event_json(shown))
        return True

    return show
