"""Which records of a shard are older than its start: where the application began, or where a replay has set it back to.

A replay goes back to a time or to a number. A number is a place in the shard, so nothing has to be left out. A time is
not: reading begins at the oldest record that is left, and what is older than the time is left out, if it was settled
before the replay. What was not settled then is handled for the first time, however old it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .stream_record import StreamRecord

NOTHING: Final = "0"  # a number below every SequenceNumber


@dataclass(frozen=True, slots=True)
class ReplayStart:
    """What the row of a shard keeps of a replay. It holds for this shard instead of the application's own start.

    ``since`` (Unix seconds): older records are not repeated; 0: it is the frontier that says where the replay begins.
    ``settled``: everything up to this number was settled before the replay (NOTHING: nothing was).
    ``older_settled``: so was everything older than ``since``, whatever its number.
    """

    since: float
    settled: str = NOTHING
    older_settled: bool = False


class StartRule:
    """Asked for every record that is read. ``start_at`` (Unix seconds) is where the application began, None: at the
    oldest record; ``replay`` is that of the shard."""

    __slots__ = ("_older_settled", "_replay", "_settled", "_since", "_start_at", "takes_all")

    def __init__(self, start_at: float | None, replay: ReplayStart | None = None) -> None:
        self._start_at = start_at
        self._replay = replay
        self._since = start_at or 0.0 if replay is None else replay.since
        self._settled = 0 if replay is None else int(replay.settled)
        self._older_settled = replay is None or replay.older_settled
        self.takes_all = self._since <= 0.0  # nothing is ever left out

    @property
    def not_before(self) -> float | None:
        """Older records (Unix seconds) need not even be read; None when it is not known of any."""
        if self.takes_all:
            return None
        if self._older_settled:
            return self._since
        return None if self._start_at is None else min(self._start_at, self._since)

    def leaves_out(self, record: StreamRecord) -> bool:
        """Whether the record is older than the start, so that it counts as settled."""
        created = record.created
        if not 0 < created < self._since:  # 0: unknown
            return False
        if self._older_settled or int(record.number) <= self._settled:
            return True
        return self._start_at is not None and created < self._start_at
