"""``stream-consumer dlq list``: how many letters there are, of which keys, why, and how old."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.dlq.options import (
    place_option,
    place_or_exit,
    selection_options,
    show_values_option,
)
from consumer.cli.failures import settings_or_exit
from consumer.cli.output import output_option

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.letter_selection import Selection
    from consumer.redrive.gathering import GatheredLetter, Gathering
    from consumer.settings.model import Settings


@click.command("list")
@config_options
@place_option
@selection_options
@show_values_option
@output_option
def list_letters(
    config: Path,
    place: str | None,
    which: Selection,
    limit: int | None,
    show_values: bool,
    output: str,
) -> None:
    """Count the dead letters by key, reason and age. Nothing is changed.

    A queue shows its messages to one reader at a time: while they are counted nobody else gets them, each counts as
    received once more, and those in the hands of somebody else are missing here.
    """
    settings = settings_or_exit(config)
    where = place_or_exit(settings, place)
    shown = answer_of(_listed(settings, where, which, limit, show_values))
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False) if output == "json" else _as_text(shown))


async def _listed(
    settings: Settings, place: str, which: Selection, limit: int | None, show_values: bool
) -> dict[str, Any]:
    from consumer.cli.dlq.reach import looked, say_what_is_not_shown
    from consumer.cli.dlq.text import described, parked_key

    async with looked(settings, place, which, limit, payloads=show_values) as look:
        found = look.gathered.letters
        say_what_is_not_shown(look.gathered, look.waiting)
        return {
            "place": place,
            "letters": len(found),
            "records": sum(one.letter.count for one in found),
            "not_selected": look.gathered.not_selected,
            "ignored": look.gathered.foreign,
            "in_queue": look.waiting.visible + look.waiting.hidden if look.waiting else None,
            "in_flight_elsewhere": look.waiting.hidden if look.waiting else None,
            "parked_keys": None if look.parked is None else [parked_key(one) for one in look.parked],
            "groups": _groups(found, look.gathering if show_values else None),
            "each": [described(one) for one in found],
        }


def _groups(letters: Sequence[GatheredLetter], gathering: Gathering | None) -> list[dict[str, Any]]:
    """Of equal keys and reasons, the oldest first. With ``gathering`` the keys are shown as they are."""
    from consumer.cli.dlq.text import key_name, keys_in_plain, letter_id, moment, reason_of

    groups: dict[tuple[str, str, bool], list[GatheredLetter]] = {}
    for one in sorted(letters, key=lambda one: one.letter.given_up_at):
        groups.setdefault((key_name(one), reason_of(one), one.letter.parked is not None), []).append(one)
    shown = []
    for (key, reason, parked), found in groups.items():
        group = {
            "key": key,
            "reason": reason,
            "parked": parked,
            "letters": len(found),
            "records": sum(one.letter.count for one in found),
            "oldest": moment(found[0].letter.given_up_at),
            "newest": moment(found[-1].letter.given_up_at),
            "id": letter_id(found[0]),
        }
        if gathering is not None:
            try:
                group["plain_key"] = keys_in_plain(gathering.records(found[0]))
            except ValueError as error:
                group["plain_key"] = f"({error})"
        shown.append(group)
    return shown


def _as_text(shown: dict[str, Any]) -> str:
    from consumer.cli.output import table

    tables = [_parked_table(shown["parked_keys"])] if shown["parked_keys"] else []
    if not shown["groups"]:
        return "\n".join([*tables, f"no letters in {shown['place']}"])
    in_plain = "plain_key" in shown["groups"][0]
    rows = [["KEY", *(["IN PLAIN"] if in_plain else []), "REASON", "LETTERS", "RECORDS", "OLDEST", "NEWEST", "ID"]]
    for group in shown["groups"]:
        name = f"{group['key']} (parked)" if group["parked"] else group["key"]
        numbers = [str(group["letters"]), str(group["records"])]
        more = [group["plain_key"]] if in_plain else []
        rows.append([name, *more, group["reason"], *numbers, group["oldest"], group["newest"], group["id"]])
    total = f"{shown['letters']} letters, {shown['records']} records in {shown['place']}"
    return "\n".join([*tables, table(rows), total])


def _parked_table(keys: Sequence[dict[str, Any]]) -> str:
    from consumer.cli.output import table

    rows = [["PARKED KEY", "STATE", "SINCE", "REASON", "LETTERS", "HANDLED", "SHARDS", "REDRIVE"]]
    for one in keys:
        numbers = [str(one["letters"]), str(one["handled"]), str(len(one["shards"]))]
        rows.append([one["key"], one["state"], one["since"], one["reason"], *numbers, one["redrive"] or "-"])
    problems = "".join(f"damaged: {one['problem']}\n" for one in keys if one["problem"])
    return f"{table(rows)}\n{len(keys)} keys are parked\n{problems}"
