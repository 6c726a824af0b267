"""``stream-consumer dlq show``: single letters, without their values unless they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_and
from consumer.cli.dlq.options import place_option, place_or_exit, show_values_option
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit
from consumer.cli.output import output_option

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@click.command()
@config_and("name", "ID")
@place_option
@click.option("--key", metavar="DIGEST", help="The letters of this key.")
@show_values_option
@output_option
def show(config: Path, name: str | None, place: str | None, key: str | None, show_values: bool, output: str) -> None:
    """Show the letter ID, or all of --key: where its records are from, and why they are there.

    ID is what `dlq list` shows, an idempotency key, a message id or the URL of an object. With --show-values also the
    message of the error and the records themselves. Exit code 1 when there is no such letter (in a queue it may be in
    the hands of somebody else).
    """
    if (name is None) == (key is None):
        raise click.UsageError("give the ID of a letter, or --key DIGEST")
    settings = settings_or_exit(config)
    where = place_or_exit(settings, place)
    shown = answer_of(_found(settings, where, name, key, show_values))
    if not shown:
        fail(f"no letter {name or f'of the key {key}'} in {where}: see `stream-consumer dlq list`", 1)
    if output == "json":
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        click.echo("\n\n".join(map(_as_text, shown)))


async def _found(
    settings: Settings, place: str, name: str | None, key: str | None, show_values: bool
) -> list[dict[str, Any]]:
    from consumer.cli.dlq.reach import looked
    from consumer.cli.dlq.text import ID_DIGITS, described, is_named

    if name is not None and len(name) < ID_DIGITS:
        fail(f"the ID of a letter has {ID_DIGITS} characters or more, as `stream-consumer dlq list` shows it", EX_USAGE)
    from consumer.domain.letter_selection import Selection

    shown = []
    async with looked(settings, place, Selection(key=key), None, payloads=show_values) as look:
        for one in look.gathered.letters:
            if name is not None and not is_named(one, name):
                continue
            fields = described(one)
            if show_values:
                fields["error_message"] = one.letter.error_message or None
                fields["payload"] = look.gathering.payload(one).decode("utf-8", "replace") or None
            shown.append(fields)
    return shown


def _as_text(fields: dict[str, Any]) -> str:
    from consumer.cli.output import plain

    rows = []
    for name, value in fields.items():
        if value in (None, False, []):
            continue
        parts = [f"{part} {found}" for part, found in value.items()] if isinstance(value, dict) else value
        text = ", ".join(parts) if isinstance(parts, list) else str(parts)
        rows.append(f"{name:<22} {plain(text)}")
    return "\n".join(rows)
