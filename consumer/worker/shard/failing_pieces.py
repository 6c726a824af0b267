"""The pieces of batches that wait for another attempt, or for their dead letter, by the keys that they hold."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from consumer.domain.batching import KeyReadyQueue
from consumer.domain.pieces import Cut, ParkedPiece, Piece


class FailingPieces:
    """Of one shard. ``queue`` bounds what waits behind their keys, ``now`` gives monotonic seconds. ``by_key``: each
    key is in one piece."""

    def __init__(self, queue: KeyReadyQueue, now: Callable[[], float]) -> None:
        self.by_key: dict[bytes, Piece | ParkedPiece] = {}
        self._queue = queue
        self._now = now
        self._since: dict[bytes, float] = {}
        self._suspects: dict[Piece | ParkedPiece, float] = {}  # parts of what has failed that were not tried yet
        self._sizes: dict[Piece | ParkedPiece, int] = {}

    @property
    def size(self) -> int:
        """Bytes of their records."""
        return sum(self._sizes.values())

    def since(self) -> float | None:
        """Since when (monotonic seconds) the key fails that has failed for longest, or the batch that is being cut to
        find it, which takes its time with a handler that hangs; None without one."""
        return min((*self._since.values(), *self._suspects.values()), default=None)

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
        since = self._suspects.pop(piece, self._now())
        for key in piece.keys:
            self._since.setdefault(key, since)
        self.measure(piece)
        for entry in piece.entries:
            entry.record.forget()

    def measure(self, piece: Piece | ParkedPiece) -> None:
        """The piece has other records now."""
        self._sizes[piece] = sum(entry.copy_out() for entry in piece.entries)

    def end(self, piece: Piece | ParkedPiece, keys: Collection[bytes]) -> None:
        """These keys of a piece are tried again, or are through; it comes back with ``add`` when others are left."""
        self._sizes.pop(piece, None)
        self._suspects.pop(piece, None)
        for key in keys:
            if self.by_key.pop(key, None) is not None:
                del self._since[key]
                self._queue.end_failing((key,))

    def cut(self, piece: Piece, cut: Cut) -> None:
        """What came of a call of a piece that did not get through as a whole."""
        since = self._suspects.pop(piece, self._now())
        if cut.settled and piece.stands_alone:
            since = self._now()
        self._suspects.update((part, since) for part in cut.pieces)

    def clear(self, piece: Piece) -> None:
        """A piece got through, or is no piece any more: if it was suspected, it is not."""
        self._suspects.pop(piece, None)

    def got_on(self, keys: Collection[bytes]) -> None:
        """Records of these keys are settled: those that fail all the same fail from now on."""
        now = self._now()
        self._since.update((key, now) for key in keys if key in self._since)
