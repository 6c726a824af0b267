"""Options that take a duration or a time, as the config file has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def seconds_option(name: str, *, default: str, least: float, help: str) -> Callable[[Any], Any]:  # noqa: A002 - click's
    """An option whose command gets seconds, ``least`` or more."""

    def parsed(_context: click.Context, _option: click.Parameter, value: str) -> float:
        from consumer.settings.errors import Refused
        from consumer.settings.units import parse_duration

        try:
            seconds = parse_duration(value)
        except Refused as error:
            raise click.BadParameter(str(error)) from error
        if seconds < least:
            raise click.BadParameter(f"must be {least:g}s or more")
        return seconds

    return click.option(name, default=default, callback=parsed, metavar="DURATION", help=help)


def position_or_ago(text: str) -> float | None:
    """What --from says, in Unix seconds: 0 for trim_horizon, negative for so many seconds ago, None for latest.
    UsageError."""
    from consumer.settings.errors import Refused
    from consumer.settings.kinds import POSITION
    from consumer.settings.units import parse_duration

    if text == "trim_horizon":
        return 0.0
    try:
        return -parse_duration(text)
    except Refused:
        pass
    try:
        moment = POSITION.check(text)
    except Refused as error:
        raise click.UsageError(f"--from {error}, or how long ago, such as 45m") from error
    return None if moment == "latest" else float(moment.timestamp())
