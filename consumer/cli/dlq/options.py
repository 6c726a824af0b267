"""What the verbs of ``dlq`` have in common: which place, which letters."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.failures import EX_CONFIG, fail

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings

_SUBSCRIBE = (
    "is a topic, which keeps no letters: subscribe a queue to it (`aws sns subscribe --topic-arn {arn} --protocol sqs "
    "--notification-endpoint QUEUE_ARN`), and name that queue with --from QUEUE_ARN; letters that were sent before are "
    "where the topic's subscriptions have put them"
)


def moment(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Unix seconds: an ISO 8601 time (UTC unless it says otherwise), or a duration for so long ago."""
    from consumer.settings.errors import Refused
    from consumer.settings.units import parse_duration

    if value is None:
        return None
    try:
        return time.time() - parse_duration(value)
    except Refused:
        pass
    try:
        found = dt.datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter("must be a time such as 2026-11-29T03:00:00Z, or 2h for two hours ago") from error
    return found.replace(tzinfo=found.tzinfo or dt.UTC).timestamp()


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which letters: the command gets them as ``which``, and ``limit``."""

    @wraps(command)
    def with_selection(
        *, key: str | None, reason: str | None, before: float | None, after: float | None, **others: Any
    ) -> Any:
        from consumer.domain.letter_selection import Selection

        earliest, latest = -math.inf if after is None else after, math.inf if before is None else before
        return command(which=Selection(key, reason, earliest, latest), **others)

    with_options = with_selection
    for option in (
        click.option("--limit", type=click.IntRange(1), help="So many letters at most."),
        click.option("--before", callback=moment, metavar="TIME", help="Given up before this time, or so long ago."),
        click.option("--after", callback=moment, metavar="TIME", help="Given up after this time."),
        click.option("--reason", help="Of this condition (RetryAttemptsExhausted, ...) or type of error (ValueError)."),
        click.option("--key", metavar="DIGEST", help="Of this key."),
    ):
        with_options = option(with_options)
    return with_options


place_option = click.option(
    "--from", "place", metavar="ARN|s3://", help="Another queue or folder than on_failure.destination."
)
show_values_option = click.option("--show-values", is_flag=True, help="Show keys and payloads in plain text.")


def place_or_exit(settings: Settings, place: str | None) -> str:
    """Where the letters lie; or why there is no such place, on stderr, and exit 78."""
    from consumer.settings.aws_names import require_destination, service_of_destination
    from consumer.settings.errors import Refused

    found = place or settings.on_failure.destination
    if found is None:
        fail("on_failure.destination is not set, so no letters were sent: name a place with --from", EX_CONFIG)
    if place is not None:
        try:
            require_destination(place)
        except Refused as error:
            problem = f"{error} ({error.hint})" if error.hint else str(error)
            raise click.BadParameter(problem, param_hint="--from") from error
    if service_of_destination(found) == "sns":
        fail(f"{found} {_SUBSCRIBE.format(arn=found)}", EX_CONFIG)
    return found
