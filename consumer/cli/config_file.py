"""The configuration file of a verb, which takes it with ``--config`` or as its argument."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

_PATH: Final = click.Path(path_type=Path)

config_argument = click.argument("file", type=_PATH, required=False)
config_option = click.option("--config", "-c", type=_PATH, help="The YAML config file (or the argument).")


def config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--config FILE`` or the argument ``FILE``: the command gets its path as ``config``."""

    @wraps(command)
    def with_config(*, file: Path | None, config: Path | None, **others: Any) -> Any:
        return command(config=the_config_file(config, file), **others)

    return config_argument(config_option(with_config))


def optional_config(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for verbs that can do without: they get None when there is none."""

    @wraps(command)
    def with_config(*, file: Path | None, config: Path | None, **others: Any) -> Any:
        return command(config=the_config_file(config, file) if config or file else None, **others)

    return config_argument(config_option(with_config))


def config_and(name: str, metavar: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same for verbs with a second argument, which they get as ``name`` (None: not given)."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def with_config(*, file: str | None, config: Path | None, **others: Any) -> Any:
            if config is not None and others[name] is None:
                file, others[name] = None, file
            return command(config=the_config_file(config, None if file is None else Path(file)), **others)

        with_name = click.argument(name, metavar=f"[{metavar}]", required=False)(config_option(with_config))
        return click.argument("file", metavar="[FILE]", required=False)(with_name)

    return decorate


def the_config_file(config: Path | None, file: Path | None) -> Path:
    """The one of the two that was given. UsageError when it is none, or both."""
    if config is not None and file is not None:
        raise click.UsageError(f"two config files: --config {config} and the argument {file}; give one")
    found = config or file
    if found is None:
        raise click.UsageError("no config file: give one, with --config FILE or as the argument")
    return found
