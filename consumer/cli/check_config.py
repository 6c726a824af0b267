"""`stream-consumer check-config FILE`: every problem of a configuration file at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from consumer.cli.failures import EX_CONFIG, checked_or_exit, one_line_errors
from consumer.settings.model import Settings
from consumer.settings.printed import effective_yaml


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--print-effective", is_flag=True, help="Print the YAML with every default, secrets redacted.")
@click.option("--aws", is_flag=True, help="Also ask AWS: stream, lease table, destination, permissions.")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
def check_config(file: Path, print_effective: bool, aws: bool, strict: bool) -> None:
    """Check the configuration FILE and report every problem with its line.

    Exit code 0 when the file is good, 78 when it is not. Warnings about what works and may surprise go to standard
    error and change no exit code, unless --strict makes errors of them. With --aws also 69 and 77, as for ``run``: the
    stream is read once, writes are asked for on a condition that never holds, and nothing is sent to the destination.
    With --print-effective standard output is only the YAML, so that it can be piped.
    """
    settings, warnings = checked_or_exit(file)
    for warning in warnings:
        click.echo(str(warning) if strict else f"warning: {warning}", err=True)
    if warnings and strict:
        raise SystemExit(EX_CONFIG)
    if aws:
        _probe(settings)
    if print_effective:
        click.echo(effective_yaml(settings), nl=False)
    click.echo(f"{click.format_filename(file)}: ok", err=print_effective)


def _probe(settings: Settings) -> None:
    """Ask for everything once and report every answer; ends with the code of the first failure."""
    from consumer.aws.probe import probe
    from consumer.worker.clock import HeardClock, SystemClock

    with one_line_errors():
        findings = asyncio.run(probe(settings, HeardClock(SystemClock())))
    for what, error in findings:
        answer = "ok" if error is None else " ".join(str(error).split()).removeprefix(f"{what} ")
        click.echo(f"{what}: {answer}", err=True)
    codes = [error.exit_code for _, error in findings if error is not None]
    if codes:
        raise SystemExit(codes[0])
