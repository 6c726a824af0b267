"""The rows of a fleet as they were read at one moment, and what they say of its leases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .lease import LeaseRow, SessionRow
from .parking import Parked

OwnerState = Literal["none", "session", "fenced", "no session"]

# What needs a person comes first, what is over comes last.
_SEVERITY: Final = {"quarantined": 0, "halted": 1, "deferred": 2, "open": 3, "draining": 4, "waiting": 5, "done": 6}


def state_of(row: LeaseRow) -> str:
    """The state of a lease as people see it: a row that cannot be read is quarantined."""
    return "quarantined" if row.corrupt else row.state


@dataclass(frozen=True, slots=True)
class FleetRows:
    """``stream_id`` is the stream that the application reads, ``leases`` are its rows by shard. ``parked`` are the
    application's keys, also those of other streams."""

    application: str
    stream_id: str
    label: str
    leases: Mapping[str, LeaseRow]
    sessions: Sequence[SessionRow] = ()
    parked: Sequence[Parked] = ()

    def owner_state(self, row: LeaseRow) -> OwnerState:
        """Of the owner that a row names. One look cannot tell whether a session is still renewed."""
        if row.owner is None:
            return "none"
        for session in self.sessions:
            if session.incarnation == row.owner:
                return "fenced" if session.fenced else "session"
        return "no session"

    def parked_keys(self, shard_id: str) -> int:
        """Keys that have letters from this shard."""
        return sum(one.of(self.label, shard_id) is not None for one in self.parked)

    def in_order(self, *, finished: bool) -> list[LeaseRow]:
        """By severity, then by shard; without the finished ones unless they are wanted."""
        rows = [row for row in self.leases.values() if finished or not row.finished]
        return sorted(rows, key=lambda row: (_SEVERITY[state_of(row)], row.shard_id))

    def states(self) -> dict[str, int]:
        """How many leases are in each state, in the order of severity; none that is 0."""
        found = Counter(state_of(row) for row in self.leases.values())
        return {state: found[state] for state in _SEVERITY if found[state]}

    def owned_by(self, incarnation: str) -> int:
        """Unfinished leases of one worker: a finished one names its last owner for ever."""
        return sum(row.owner == incarnation for row in self.leases.values() if not row.finished)
