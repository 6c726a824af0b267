"""``stream-consumer dlq purge``: letters that nobody will bring back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.dlq.options import (
    place_option,
    place_or_exit,
    selection_options,
)
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit
from consumer.cli.output import output_option

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.letter_selection import Selection
    from consumer.redrive.gathering import GatheredLetter
    from consumer.settings.model import Settings

EXIT_LEFT = 1


@click.command()
@config_options
@place_option
@selection_options
@click.option("--yes", is_flag=True, help="Delete them.")
@click.option("--accept-loss", is_flag=True, help="Also letters of parked keys: what they hold is lost for good.")
@output_option
def purge(
    config: Path,
    place: str | None,
    which: Selection,
    limit: int | None,
    yes: bool,
    accept_loss: bool,
    output: str,
) -> None:
    """Delete dead letters and their payloads; without --yes it only shows which.

    Letters of parked keys stay, because a key comes back as a whole: --accept-loss deletes them, too. Exit code 1 when
    something was left, 2 without --yes.
    """
    settings = settings_or_exit(config)
    where = place_or_exit(settings, place)
    shown = answer_of(_purged(settings, where, which, limit, yes, accept_loss))
    if output == "json":
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        for one in shown["each"]:
            click.echo(f"{one['id']}  {one['given_up_at']}  {one['records']} records  {one['result']}")
    if not yes:
        fail(f"nothing was deleted: add --yes to delete {shown['would_go']} letters", EX_USAGE)
    click.echo(f"{shown['deleted']} letters deleted, {shown['left']} left", err=True)
    if shown["left"]:
        raise SystemExit(EXIT_LEFT)


async def _purged(
    settings: Settings, place: str, which: Selection, limit: int | None, yes: bool, accept_loss: bool
) -> dict[str, Any]:
    from consumer.cli.dlq.reach import reached, say_what_is_not_shown
    from consumer.cli.dlq.text import described
    from consumer.redrive.letter_deletion import LetterDeletion

    each: list[dict[str, Any]] = []

    def note(found: GatheredLetter, result: str) -> None:
        each.append(described(found) | {"result": result})

    async with reached(settings, place) as reach:
        gathering = reach.gathering(await reach.source_if_there())
        waiting = await reach.store.waiting()
        if not yes:
            gathered = await gathering.gather(which, limit, payloads=False)
            say_what_is_not_shown(gathered, waiting)
            for found in gathered.letters:
                note(found, _refusal(found, accept_loss) or "would be deleted")
        else:
            async with reach.claimed() as session:
                gathered = await gathering.gather(which, limit, payloads=False)
                say_what_is_not_shown(gathered, waiting)
                deletion = LetterDeletion(reach.held, reach.payloads, session)
                for found in gathered.letters:
                    session.require()
                    note(found, _refusal(found, accept_loss) or await deletion.delete(found) or "deleted")
    results = [one["result"] for one in each]
    return {
        "would_go": results.count("would be deleted"),
        "deleted": results.count("deleted"),
        "left": len(results) - results.count("deleted") - results.count("would be deleted"),
        "each": each,
    }


def _refusal(found: GatheredLetter, accept_loss: bool) -> str:
    return "is of a parked key: left" if found.letter.parked is not None and not accept_loss else ""
