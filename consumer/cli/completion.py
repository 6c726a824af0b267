"""``stream-consumer completion SHELL``: the script that lets a shell complete verbs, options and their values."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

_PROGRAM: Final = "stream-consumer"
_VARIABLE: Final = "_STREAM_CONSUMER_COMPLETE"  # what click asks for with this name of the program


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    In ~/.bashrc: eval "$(stream-consumer completion bash)". In ~/.zshrc, behind compinit: the same with zsh. For fish:
    stream-consumer completion fish > ~/.config/fish/completions/stream-consumer.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"this version of click cannot complete in {shell}")
    from consumer.cli.main import main

    click.echo(found(main, {}, _PROGRAM, _VARIABLE).source())
