"""``stream-consumer import-esm FILE``: an existing Lambda event source mapping as a configuration file."""

from __future__ import annotations

from pathlib import Path

import click


def _as_parameters(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for (name, equals, _), value in zip(pairs, values, strict=True):
        if not name or not equals:
            raise click.BadParameter(f"must be NAME=VALUE, found {value!r}")
    return {name: text for name, _, text in pairs}


@click.command("import-esm")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--target", help="The function's code: its Handler, module:attribute, or the URL of its container.")
@click.option("--mapping", metavar="NAME", help="Which mapping of several: Function.Event, logical id, UUID, address.")
@click.option(
    "--all-to",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a file for each mapping into FOLDER.",
)
@click.option(
    "--parameter",
    "parameters",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_as_parameters,
    help="A parameter of the template, a variable of Terraform, an option of serverless. Repeatable.",
)
def import_event_source_mapping(
    file: Path, target: str | None, mapping: str | None, folder: Path | None, parameters: dict[str, str]
) -> None:
    """Print the configuration that behaves like the event source mapping in FILE (`-`: standard input).

    FILE is the output of ``aws lambda get-event-source-mapping`` or ``list-event-source-mappings``, a template of
    CloudFormation, SAM or CDK, also out of ``aws cloudformation get-template``, a serverless.yml, the output of
    ``terraform show -json``, a .tf file or a folder of them. The configuration goes to standard output; what does not
    carry over by itself goes to standard error, one line each, and into the file. Exit code 78 when FILE does not hold
    the mapping that is asked for.
    """
    if folder is not None and (mapping is not None or target is not None):
        raise click.UsageError("--all-to writes every mapping: it goes with neither --mapping nor --target")
    from consumer.cli.lambda_import.printing import print_imported

    print_imported(file, target, mapping, folder, parameters)
