"""What a page says to type."""

from __future__ import annotations

import shlex

import click

from consumer.cli.main import main


def require_command(typed: str) -> None:
    """AssertionError unless ``typed``, what follows ``stream-consumer``, names a command and options that it has."""
    words = shlex.split(typed)
    context, command = click.Context(main), main
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, typed
        command = found  # type: ignore[assignment]  # the last one is no group
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, typed
