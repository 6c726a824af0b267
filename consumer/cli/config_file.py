"""The configuration file of a verb that takes it with ``--config`` or as its argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config FILE`` or the argument ``FILE``: the command gets its path as ``config``. For verbs that can do
    without one there is ``the_config_file``."""

    @wraps(command)
    def with_config(*, file: Path | None, config: Path | None, **others: Any) -> Any:
        return command(config=the_config_file(config, file), **others)

    option = click.option("--config", "-c", type=_PATH, help="The YAML config file (or the argument).")
    return click.argument("file", type=_PATH, required=False)(option(with_config))


def the_config_file(config: Path | None, file: Path | None) -> Path:
    """The one of the two that was given. UsageError when it is none, or both."""
    found = config or file
    if found is None or (config is not None and file is not None):
        raise click.UsageError("give one config file, with --config FILE or as the argument")
    return found
