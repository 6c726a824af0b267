"""What a worker asks of the lease rows at every look, found by one pass over them after a change: a worker looks once a
second, and thousands of rows hardly ever change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from .lease import LeaseRow


@dataclass(frozen=True, slots=True)
class LeaseOverview:
    """``owners`` of unfinished leases: a finished row names its last owner for ever. ``mine``: unfinished leases of
    this worker. ``behind``: rows with a lower epoch than this worker has seen. ``corrupt``: why, by shard."""

    owners: frozenset[str]
    mine: tuple[LeaseRow, ...]
    behind: tuple[LeaseRow, ...]
    corrupt: Mapping[str, str]

    @classmethod
    def of(cls, rows: Collection[LeaseRow], me: str, is_behind: Callable[[LeaseRow], bool]) -> LeaseOverview:
        unfinished = [row for row in rows if not row.finished]
        return cls(
            owners=frozenset({row.owner for row in unfinished if row.owner is not None}),
            mine=tuple(row for row in unfinished if row.owner == me),
            behind=tuple(row for row in unfinished if is_behind(row)),
            corrupt={row.shard_id: row.corrupt for row in rows if row.corrupt},
        )
