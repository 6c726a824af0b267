"""What `top` shows, look after look: the lease rows, the sessions and whether they move, and what workers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consumer.cli.fleet_reading import short_owner, utc
from consumer.cli.leases.rows import owner_text, state_cell
from consumer.cli.output import Styled
from consumer.cli.worker_status import OwnedShard, WorkerStatus
from consumer.domain.fleet_rows import FleetRows
from consumer.domain.lease import TAKE_MARGIN, LeaseRow, SessionRow

Rows = list[list[str]]

_NOTHING: Final = OwnedShard()
_UNKNOWN: Final = "-"


class Frames:
    """Remembers the look before: when counters moved, and how many records were handled. Monotonic seconds."""

    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, float]] = {}
        self._handled: dict[str, tuple[int, float]] = {}

    def headline(self, fleet: FleetRows, reached: Sequence[WorkerStatus], wall: float) -> str:
        """One line: what is wrong, or that nothing is."""
        letters = max((one.dead_letter_backlog or 0 for one in reached), default=0)
        unfinished = [row for row in fleet.leases.values() if not row.finished]
        free = sum(fleet.owner_state(row) != "session" for row in unfinished)
        stopped = sum(bool(row.corrupt) or row.state == "halted" for row in unfinished)
        failing = sum(len(row.frontier.deferred) for row in unfinished)
        wrong = [
            text
            for count, text in (
                (stopped, f"{stopped} shards stopped"),
                (free, f"{free} leases without an owner"),
                (failing, f"{failing} keys deferred"),
                (len(fleet.parked), f"{len(fleet.parked)} keys parked"),
                (letters, f"{letters} dead letters at the destination"),
            )
            if count
        ]
        workers = sum(not session.fenced for session in fleet.sessions)
        state = ", ".join(wrong) or "every lease has an owner"
        return f"{fleet.application}: {len(unfinished)} shards, {workers} workers; {state}   {utc(wall)}"

    def workers(self, fleet: FleetRows, reached: Sequence[WorkerStatus], now: float) -> Rows:
        """One row for each session, then the addresses that gave no answer."""
        rows: Rows = [["WORKER", "LEASES", "SESSION", "STATUS", "VERSION", "LAG", "RECORDS/S"]]
        by_name = {status.incarnation: status for status in reached if not status.problem}
        for session in sorted(fleet.sessions, key=lambda one: one.incarnation):
            status = by_name.get(session.incarnation)
            cells = [short_owner(session.incarnation), str(fleet.owned_by(session.incarnation))]
            cells.append(self._session(session, now))
            if status is None:
                rows.append([*cells, _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN])
                continue
            lags = [shard.lag for shard in status.shards.values() if shard.lag is not None]
            state = status.state if status.state == "ready" else Styled(status.state, "red")
            lag = f"{max(lags):.1f}s" if lags else _UNKNOWN
            rows.append([*cells, state, status.version, lag, self._rate(status, now)])
        rows += [[one.address, _UNKNOWN, _UNKNOWN, Styled(one.problem, "dim")] for one in reached if one.problem]
        return [[*row, *[""] * (len(rows[0]) - len(row))] for row in rows]

    def shards(self, fleet: FleetRows, reached: Sequence[WorkerStatus], wall: float, most: int) -> tuple[Rows, int]:
        """The unfinished leases, those that need a person first, then by lag; ``most`` of them, and how many more there
        are."""
        known = {name: shard for status in reached for name, shard in status.shards.items()}

        def urgency(row: LeaseRow) -> tuple[bool, float]:
            stopped = bool(row.corrupt) or row.state == "halted"
            return not stopped, -(known.get(row.shard_id, _NOTHING).lag or 0.0)

        rows: Rows = [["SHARD", "STATE", "OWNER", "LAG", "IN FLIGHT", "FAILING", "DEFERRED", "PARKED", "WRITTEN", ""]]
        leases = sorted(fleet.in_order(finished=False), key=urgency)
        for row in leases[:most]:
            own = known.get(row.shard_id, _NOTHING)
            lag = _UNKNOWN if own.lag is None else f"{own.lag:.1f}s"
            numbers = (own.in_flight, own.failing, len(row.frontier.deferred), fleet.parked_keys(row.shard_id))
            counts = [_UNKNOWN if number is None else str(number) for number in numbers]
            written = f"{max(0.0, wall - row.updated_at):.0f}s ago" if row.updated_at else _UNKNOWN
            note = row.corrupt or row.note or own.note
            rows.append([row.shard_id, state_cell(row), owner_text(fleet, row), lag, *counts, written, note])
        return rows, max(0, len(leases) - most)

    def _session(self, session: SessionRow, now: float) -> str:
        if session.fenced:
            return Styled("fenced", "red")
        before = self._moved.get(session.incarnation)
        if before is None or before[0] != session.counter:
            self._moved[session.incarnation] = (session.counter, now)
            return "leaving" if session.leaving else "open" if before is None else "alive"
        silent = now - before[1]
        try:
            expired = silent > TAKE_MARGIN * session.duration
        except ValueError:
            expired = False
        text = f"silent {silent:.0f}s"
        return Styled(text, "red") if expired else text

    def _rate(self, status: WorkerStatus, now: float) -> str:
        before = self._handled.get(status.incarnation)
        if status.handled is None:
            return _UNKNOWN
        self._handled[status.incarnation] = (status.handled, now)
        if before is None or now <= before[1]:
            return _UNKNOWN
        return f"{max(0, status.handled - before[0]) / (now - before[1]):.1f}"
