"""`stream-consumer filter test`: does this event pass the filters of the configuration, and what decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.cli.config_file import config_options
from consumer.cli.failures import records_or_exit, settings_or_exit
from consumer.cli.output import echo_json, output_option, plain, table
from consumer.cli.verbs import Verb, Verbs

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.domain.filters.filters import Explanation
    from consumer.domain.stream_record import StreamRecord

EXIT_NO_MATCH = 1
_FOUND_MAX = 60


_VERBS = {"test": Verb("consumer.cli.filter", "test", "Does this event pass, and which clause decided?")}


@click.command("filter", cls=Verbs, verbs=_VERBS)
def filter_group() -> None:
    """Try filters without running anything."""


@click.command("test")
@config_options
@click.option(
    "--event",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON: a Lambda event, a record or a list of them, an answer of the CLI, or a dead letter.",
)
@output_option
def test(config: Path, event: Path, output: str) -> None:
    """Say whether the records of --event pass the filters of --config, and which clause decided.

    Exit code 0 when every record passes, 1 when one does not, 2 when the event cannot be used, 78 when the
    configuration cannot.
    """
    settings = settings_or_exit(config)
    filters = settings.compiled_filters()
    explained = [(record, filters.explain(record)) for record in records_or_exit(event, settings)]
    passed = all(explanation.matched for _, explanation in explained)
    if output == "json":
        results = [_as_json(index, *one) for index, one in enumerate(explained)]
        echo_json({"matched": passed, "filters": len(filters), "records": results})
    else:
        for index, one in enumerate(explained):
            click.echo(_as_table(index, *one))
    if not passed:
        raise SystemExit(EXIT_NO_MATCH)


def _as_json(index: int, record: StreamRecord, explanation: Explanation) -> dict[str, Any]:
    return {
        "index": index,
        "eventID": record.event_id,
        "matched": explanation.matched,
        "reason": explanation.reason,
        "filters": [
            {
                "filter": result.index,
                "matched": result.matched,
                "across_elements": result.across_elements,
                "clauses": [
                    {
                        "clause": clause.place,
                        "field": clause.field,
                        "matched": clause.matched,
                        "wanted": clause.wanted,
                        "found": clause.found,
                        "note": clause.note,
                    }
                    for clause in result.clauses
                ],
            }
            for result in explanation.filters
        ],
    }


def _as_table(index: int, record: StreamRecord, explanation: Explanation) -> str:
    verdict = "passes" if explanation.matched else "is skipped"
    lines = [plain(f"record {index} ({record.event_name or '-'} {record.event_id or '-'}) {verdict}")]
    lines[0] += f": {plain(explanation.reason)}"
    rows = [
        (
            "yes" if clause.matched else "no",
            clause.place,
            _listed(clause.wanted),
            _listed(clause.found) if clause.found else f"({clause.note})",
        )
        for result in explanation.filters
        for clause in result.clauses
    ]
    if rows:
        shown = table([("HOLDS", "CLAUSE", "WANTED", "FOUND"), *rows])
        lines += [f"  {line}" for line in shown.splitlines()]
    return "\n".join(lines)


def _listed(values: tuple[Any, ...]) -> str:
    text = ", ".join(map(json.dumps, values))
    return text if len(text) <= _FOUND_MAX else f"{text[: _FOUND_MAX - 3]}..."
