"""Records that were given up and wait in place for a handler that is mended (``on_failure.order: block``).

A blocked piece keeps its keys, as any failing piece does, and is tried every ``PROBE`` seconds. It is in no durable
row: its records are not settled, so the next owner of the shard tries them afresh. What cannot wait any longer is
parked, and never lost: a piece whose records have half of their retention behind them or grow too old, and the oldest
one when too many wait, or when the shard could start nothing new for them.
"""

from __future__ import annotations

import structlog

from consumer.domain.deferred import digest_of
from consumer.domain.pieces import Piece
from consumer.domain.settlement import GiveUp
from consumer.worker.context import WorkerContext
from consumer.worker.shard.pausing_pieces import PausingPieces

log = structlog.get_logger()

PROBE = 300.0  # seconds between attempts


class BlockedPieces:
    """Of one shard; they pause among its ``pausing`` pieces."""

    def __init__(self, context: WorkerContext, shard_id: str, pausing: PausingPieces) -> None:
        self._clock = context.ports.clock
        self._shard_id = shard_id
        self._oldest_age = context.ports.source.retention / 2.0
        self._most = context.bounds.blocked_keys
        self._pausing = pausing
        self._steps: dict[Piece, GiveUp] = {}

    def __len__(self) -> int:
        return sum(len(piece.keys) for piece in self._steps)

    def admits(self, piece: Piece, step: GiveUp) -> bool:
        """Whether a piece that is given up may wait."""
        created = piece.entries[0].record.created
        too_old = 0 < created < self._clock.trusted() - self._oldest_age
        return step.condition == "RetryAttemptsExhausted" and not too_old

    def add(self, piece: Piece, step: GiveUp) -> None:
        """The piece waits, and is tried again after a while."""
        piece.try_again()
        self._steps[piece] = step
        self._pausing.add(piece, PROBE)
        if piece.blocked:
            return
        piece.blocked = True
        for key in piece.keys:
            log.warning(
                "key.blocked",
                shard_id=self._shard_id,
                key_digest=digest_of(key),
                sequence_number=step.records[0].sequence_number,
                condition=step.condition,
                next_attempt=PROBE,
            )

    def begin(self, piece: Piece) -> None:
        """The piece is tried now."""
        self._steps.pop(piece, None)

    def take_oldest(self, *, full: bool) -> tuple[Piece, GiveUp] | None:
        """The piece that has to be parked now, if there is one; ``full``: the shard can start nothing new."""
        if not self._steps or not (full or len(self) > self._most):
            return None
        piece = min(self._steps, key=lambda one: one.entries[0].record.created)
        self._pausing.remove(piece)
        return piece, self._steps.pop(piece)
