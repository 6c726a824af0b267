"""``stream-consumer invoke``: the handler on one event, once, and what the daemon would do next."""

from __future__ import annotations

from pathlib import Path

import click

from consumer.cli.config_file import config_options
from consumer.cli.failures import settings_or_exit
from consumer.cli.output import output_option

EXIT_FAILED = 1


@click.command()
@config_options
@click.option(
    "--event",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON: a Lambda event, a record or a list of them, an answer of the CLI, or a dead letter.",
)
@click.option("--attempt", type=click.IntRange(1), default=1, help="As what attempt, for context.attempt. Default 1.")
@output_option
def invoke(config: Path, event: Path, attempt: int, output: str) -> None:
    """Call the handler of --config once with the records of --event, as the daemon would.

    The filters count, and so does handler.timeout; nothing is read from AWS or written there, but by the handler. What
    it prints goes to standard error. Exit code 0 when the records are handled, or all of them are filtered; 1 when some
    are not; 2 when the event cannot be used; 69 and 78 when the handler cannot be started, as for run.
    """
    settings = settings_or_exit(config)
    from consumer.cli.invocation import invoked

    if not invoked(settings, event, attempt, as_json=output == "json"):
        raise SystemExit(EXIT_FAILED)
