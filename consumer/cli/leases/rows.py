"""Lease rows as text and as JSON."""

from __future__ import annotations

from typing import Any, Final

from consumer.cli.fleet_reading import short_owner, utc
from consumer.cli.output import Styled
from consumer.domain.fleet_rows import FleetRows, state_of
from consumer.domain.lease import LeaseRow

_STYLES: Final = {"quarantined": "bold red", "halted": "bold red", "deferred": "yellow", "open": "green", "done": "dim"}


def state_cell(row: LeaseRow) -> str:
    state = state_of(row)
    return Styled(state, _STYLES.get(state, ""))


def owner_text(fleet: FleetRows, row: LeaseRow) -> str:
    """The owner, marked when it is dead."""
    state, owner = fleet.owner_state(row), short_owner(row.owner)
    return Styled(f"{owner} ({state})", "red") if state in ("fenced", "no session") and not row.finished else owner


def checkpoint_of(row: LeaseRow) -> str:
    """Up to where everything is settled, or from where it is to be; "-" when nothing was read."""
    frontier = row.frontier
    if frontier.low is not None:
        return frontier.low
    return f"at {frontier.first}" if frontier.first is not None else "-"


def fleet_document(fleet: FleetRows, *, finished: bool) -> dict[str, Any]:
    """All rows, and who works on them. Times are ISO 8601, null when they are not known."""
    return {
        "application": fleet.application,
        "stream_id": fleet.stream_id,
        "states": fleet.states(),
        "parked_keys": len(fleet.parked),
        "workers": [
            {
                "incarnation": one.incarnation,
                "leases": fleet.owned_by(one.incarnation),
                "started_at": _time(one.started_at),
                "fenced": one.fenced,
                "leaving": one.leaving,
                "max_shards": one.capacity or None,
            }
            for one in fleet.sessions
        ],
        "leases": [lease_document(fleet, row) for row in fleet.in_order(finished=finished)],
    }


def lease_document(fleet: FleetRows, row: LeaseRow) -> dict[str, Any]:
    """One row, complete. ``settled_above`` are stretches of numbers; keys are named by their digests."""
    frontier, replay = row.frontier, row.replay
    return {
        "shard_id": row.shard_id,
        "state": state_of(row),
        "parents": list(row.parents),
        "owner": row.owner,
        "owner_state": fleet.owner_state(row),
        "epoch": row.epoch,
        "checkpoint": frontier.low,
        "first": frontier.first,
        "settled_above": [{"first": first, "last": last} for first, last in frontier.runs],
        "deferred": [
            {"key": one.digest, "from": one.number, "since": _time(one.since), "waits_for_parent": one.waits_for_parent}
            for one in frontier.deferred
        ],
        "parked": [
            {"key": found.digest, "letters": found.letters, "handled": found.done}
            for one in fleet.parked
            if (found := one.of(fleet.label, row.shard_id)) is not None
        ],
        "replay": None if replay is None else {"since": _time(replay.since), "settled": replay.settled},
        "window_open": row.window_open,
        "written_at": _time(row.updated_at),
        "note": row.corrupt or row.note,
    }


def _time(seconds: float) -> str | None:
    return utc(seconds) if seconds else None
