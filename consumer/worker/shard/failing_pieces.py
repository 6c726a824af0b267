"""The pieces of batches that wait for another attempt, or for their dead letter, by the keys that they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from consumer.domain.batching import KeyReadyQueue
from consumer.domain.pieces import ParkedPiece, Piece


class FailingPieces:
    """Of one shard. ``queue`` bounds what waits behind their keys. ``by_key``: each key is in one piece."""

    def __init__(self, queue: KeyReadyQueue) -> None:
        self.by_key: dict[bytes, Piece | ParkedPiece] = {}
        self._queue = queue
        self._sizes: dict[Piece | ParkedPiece, int] = {}

    @property
    def size(self) -> int:
        """Bytes of their records."""
        return sum(self._sizes.values())

    def first_records(self) -> Iterator[tuple[bytes, float]]:
        """The keys, each with the creation time (Unix seconds) of its first record; 0 when it has none."""
        for key, piece in self.by_key.items():
            yield key, next((entry.record.created for entry in piece.entries if entry.key == key), 0.0)

    def has_any_of(self, keys: Collection[bytes]) -> bool:
        """Whether one of ``keys`` fails."""
        return not self.by_key.keys().isdisjoint(keys)

    def add(self, piece: Piece | ParkedPiece) -> None:
        """This piece lives longer now: copied out of its pages, and what waits behind it is bounded."""
        self._queue.fail(piece.keys)
        self.by_key.update(dict.fromkeys(piece.keys, piece))
        self.measure(piece)
        for entry in piece.entries:
            entry.record.forget()

    def measure(self, piece: Piece | ParkedPiece) -> None:
        """The piece has other records now."""
        self._sizes[piece] = sum(entry.copy_out() for entry in piece.entries)

    def end(self, piece: Piece | ParkedPiece, keys: Collection[bytes]) -> None:
        """These keys of a piece are tried again, or are through; it comes back with ``add`` when others are left."""
        self._sizes.pop(piece, None)
        for key in keys:
            if self.by_key.pop(key, None) is not None:
                self._queue.end_failing((key,))
