"""Mappings out of files, as configurations on standard output or in a folder."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from consumer.cli.failures import EX_CONFIG, fail
from consumer.cli.lambda_import.application import application_names
from consumer.cli.lambda_import.document import decode
from consumer.cli.lambda_import.found import Contents, NotAMapping, Note
from consumer.cli.lambda_import.mapping import Imported, import_mapping
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.selection import chosen_mapping, readable_mappings, skipped
from consumer.cli.lambda_import.sources.detect import contents_of_text
from consumer.cli.lambda_import.sources.terraform_files import terraform_file_mappings

_SUFFIX = ".tf"


def print_imported(
    file: Path, target: str | None, mapping: str | None, folder: Path | None, parameters: dict[str, str]
) -> None:
    """One mapping to standard output, or every one into ``folder``; or why not, on stderr, and exit 78."""
    name = "standard input" if str(file) == "-" else click.format_filename(file)
    try:
        contents = _read(file, Parameters(parameters))
        if folder is None:
            imported = import_chosen(contents, mapping, target)
            click.echo(imported.yaml, nl=False)
            _show("What does not carry over by itself:", (*skipped(contents), *imported.notes))
        else:
            _write_all(contents, folder)
    except OSError as error:
        fail(f"{error.filename or name}: cannot be {_verb(error, folder)}: {error.strerror or error}", EX_CONFIG)
    except NotAMapping as error:
        fail(" ".join(f"{name}: {error}".split()), error.exit_code)


def import_chosen(contents: Contents, mapping: str | None, target: str | None) -> Imported:
    """The configuration of one mapping, under the name that it has beside the others. Raises NotAMapping."""
    chosen = chosen_mapping(contents, mapping)
    readable = readable_mappings(contents)
    application = application_names(readable)[readable.index(chosen)]
    return import_mapping(chosen, target=target, application=application)


def _read(file: Path, parameters: Parameters) -> Contents:
    if str(file) == "-":
        return contents_of_text(decode(sys.stdin.buffer.read()), parameters)
    if not file.is_dir():
        return contents_of_text(decode(file.read_bytes()), parameters, terraform=file.suffix == _SUFFIX)
    files = sorted(one for one in file.iterdir() if one.suffix == _SUFFIX)
    if not files:
        raise NotAMapping("cannot be read: it is a folder without .tf files")
    contents = terraform_file_mappings({one.name: decode(one.read_bytes()) for one in files}, parameters)
    parameters.require_known()
    return contents


def _write_all(contents: Contents, folder: Path) -> None:
    readable = readable_mappings(contents)
    files = {
        folder / f"{name}.yaml": (name, one) for name, one in zip(application_names(readable), readable, strict=True)
    }
    for path in files:
        if path.exists():
            fail(f"{click.format_filename(path)}: exists: remove it, or name another folder", EX_CONFIG)
    folder.mkdir(parents=True, exist_ok=True)
    _show("Not imported:", skipped(contents))
    for path, (application, one) in files.items():
        imported = import_mapping(one, application=application)
        path.write_text(imported.yaml, encoding="utf-8")
        click.echo(click.format_filename(path))
        _show(f"What does not carry over by itself, of {one.name}:", imported.notes)


def _show(title: str, notes: Iterable[Note]) -> None:
    lines = [f"  {note}" for note in notes]
    for line in [title, *lines] if lines else []:
        click.echo(line, err=True)


def _verb(error: OSError, folder: Path | None) -> str:
    written = folder is not None and error.filename is not None and Path(error.filename).is_relative_to(folder)
    return "written" if written else "read"
