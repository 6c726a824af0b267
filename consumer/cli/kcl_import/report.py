"""What an import shows: the rows, and everything about them that somebody should know."""

from __future__ import annotations

import json
from typing import Any

from consumer.cli.kcl_import.survey import Request, Survey
from consumer.cli.output import plain, table
from consumer.domain.kcl_leases import some
from consumer.domain.kcl_plan import PlannedRow


def as_json(request: Request, found: Survey, written: int | None) -> str:
    """``written``: how many rows were written now; None when nothing was to be written."""
    settings = request.settings
    document: dict[str, Any] = {
        "table": request.table,
        "application": settings.application,
        "lease_table": settings.leases.table,
        "stream_arn": found.stream.stream_arn,
        "written": written,
        "rows": [_row(one, found) for one in found.plan.rows],
        "discovered": list(found.plan.discovered),
        "other_streams": dict(found.own_leases.foreign),
        "other_rows": [{"key": row.key, "kind": row.kind} for row in found.reading.others],
        "workers": list(found.reading.owners),
        "notes": list(found.notes),
        "refusals": list(found.refusals),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _row(one: PlannedRow, found: Survey) -> dict[str, Any]:
    row = one.row
    return {
        "shard_id": row.shard_id,
        "checkpoint": one.checkpoint or None,
        "state": row.state,
        "low": row.frontier.low,
        "first": row.frontier.first,
        "parents": list(row.parents),
        "starting_sequence_number": row.starting_sequence_number,
        "why": one.why,
        "there_already": row.shard_id in found.there,
    }


def as_text(request: Request, found: Survey) -> str:
    settings, reading = request.settings, found.reading
    workers = some(reading.owners) or "nobody"
    head = [
        f"from   table {request.table}: {_count(len(reading.leases), 'lease')}, last of the workers {workers}",
        f"to     lease table {settings.leases.table}, application {settings.application}",
        f"stream {found.stream.stream_arn}",
    ]
    rows = table([("SHARD", "ROW", "CHECKPOINT OF THE KCL", "WHAT THAT MEANS"), *map(_cells, found.plan.rows)])
    lines = []
    if found.there:
        lines.append(f"there already: {_count(len(found.there), 'row')}")
    if found.plan.discovered:
        shards = _count(len(found.plan.discovered), "shard")
        lines.append(f"no row: {shards} without a lease, read from the beginning: {some(found.plan.discovered)}")
    for stream, leases in found.own_leases.foreign.items():
        lines.append(f"left alone: {_count(leases, 'lease')} of {stream}")
    lines += [f"left alone: {row.key} ({row.kind})" for row in reading.others]
    position = settings.source.starting_position
    if position != "trim_horizon":
        lines.append(
            f"note: source.starting_position ({position}) does not count for this application: it goes on behind the "
            "checkpoints"
        )
    lines += [f"note: {note}" for note in found.notes]
    return "\n".join([*map(plain, head), "", rows, "", *map(plain, lines)]).rstrip()


def _cells(one: PlannedRow) -> tuple[str, str, str, str]:
    return one.row.shard_id, one.row.state, one.checkpoint or "-", one.why


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
