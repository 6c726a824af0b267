"""``stream-consumer import-esm FILE``: an existing Lambda event source mapping as a configuration file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from consumer.cli.failures import EX_CONFIG, fail
from consumer.cli.lambda_import.document import NotAMapping, decode, parse
from consumer.cli.lambda_import.mapping import import_mapping


@click.command("import-esm")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--target", help="The function's code, module:attribute, or the URL of its container.")
def import_event_source_mapping(file: Path, target: str | None) -> None:
    """Print the configuration that behaves like the event source mapping in FILE (`-`: standard input).

    FILE is the output of ``aws lambda get-event-source-mapping``, an AWS::Lambda::EventSourceMapping, or a SAM
    event, in JSON or YAML. The configuration goes to standard output; what does not carry over by itself goes to
    standard error, one line each. Exit code 78 when FILE holds no mapping.
    """
    name = "standard input" if str(file) == "-" else click.format_filename(file)
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        imported = import_mapping(parse(decode(raw)), target=target)
    except OSError as error:
        fail(f"{name}: cannot be read: {error.strerror or error}", EX_CONFIG)
    except NotAMapping as error:
        fail(" ".join(f"{name}: {error}".split()), error.exit_code)
    click.echo(imported.yaml, nl=False)
    if imported.notes:
        click.echo("What does not carry over by itself:", err=True)
    for note in imported.notes:
        click.echo(f"  {note}", err=True)
