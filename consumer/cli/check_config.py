"""`stream-consumer check-config FILE`: every problem of a configuration file at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli.completed import answer_of, completed
from consumer.cli.config_file import config_options
from consumer.cli.failures import EX_CONFIG, checked_or_exit
from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.urls import redact_urls

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@click.command("check-config")
@config_options
@click.option("--print-effective", is_flag=True, help="Print the YAML with every default, secrets redacted.")
@click.option("--aws", is_flag=True, help="Also ask AWS: stream, lease table, destination, permissions.")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@click.option("--no-import", is_flag=True, help="Leave the handler alone: do not start it to see whether it can be.")
def check_config(config: Path, print_effective: bool, aws: bool, strict: bool, no_import: bool) -> None:
    """Check a configuration file and report every problem with its line.

    The handler is started in a process of its own, as the daemon would, and ended before any call: one that cannot be
    imported, or takes other arguments, is a problem; one that only lacks the network here is a warning.

    Exit code 0 when the file is good, 78 when it is not. Warnings about what works and may surprise go to standard
    error and change no exit code, unless --strict makes errors of them. With --aws also 69 and 77, as for ``run``: the
    stream is read once, writes are asked for on a condition that never holds, and nothing is sent to the destination.
    With --print-effective standard output is only the YAML, so that it can be piped.
    """
    settings, warnings = checked_or_exit(config)
    said = [str(warning) for warning in warnings]
    problem = None if no_import else _import_problem(config, settings)
    if isinstance(problem, HandlerImportMayPass):
        said.append(str(problem))
        problem = None
    if problem is not None:
        click.echo(str(problem), err=True)
    _warn(said, strict=strict, is_bad=problem is not None)
    if aws:
        _warn(_probe(settings), strict=strict)
    if print_effective:
        from consumer.settings.printed import effective_yaml

        click.echo(effective_yaml(settings), nl=False)
    click.echo(f"{click.format_filename(config)}: ok", err=print_effective)


def _warn(warnings: list[str], *, strict: bool, is_bad: bool = False) -> None:
    """Say them, and end with 78 if they count, or if something ``is_bad`` anyway."""
    for text in warnings:
        click.echo(text if strict else f"warning: {text}", err=True)
    if is_bad or (warnings and strict):
        raise SystemExit(EX_CONFIG)


def _import_problem(file: Path, settings: Settings) -> HandlerImportError | None:
    """Why the handler cannot be started, with the place of its setting."""
    from consumer.cli.handler_run import import_problem, output_on_stderr
    from consumer.settings.load import line_of

    with output_on_stderr():
        problem = completed(import_problem(settings))
    if problem is None:
        return None
    text = redact_urls(" ".join(str(problem).split()))  # user code likes to quote them, with their passwords
    key = text.partition(" ")[0].rstrip(":")  # the setting that names the code
    line = line_of(file, os.environ, key if key.startswith("handler.") else "handler")
    return type(problem)(f"{click.format_filename(file)}:{line}: {text}")


def _probe(settings: Settings) -> list[str]:
    """Ask for everything once and report every answer; ends with the code of the first failure. Returns warnings."""
    from consumer.aws.probe import probe
    from consumer.worker.clock import HeardClock, SystemClock

    findings, warnings = answer_of(probe(settings, HeardClock(SystemClock())))
    for what, error in findings:
        answer = "ok" if error is None else " ".join(str(error).split()).removeprefix(f"{what} ")
        click.echo(f"{what}: {answer}", err=True)
    codes = [error.exit_code for _, error in findings if error is not None]
    if codes:
        raise SystemExit(codes[0])
    return warnings
