"""How a batch is settled when a failing key holds up nothing but itself (``batch.order: key``). Pure.

A *piece* is some keys and their records, in stream order. A batch begins as one piece. When its call fails, it is cut
into halves by keys, which costs no retry, until the failing keys stand alone; a partial answer separates them at once.
From then on each key is settled by Lambda's rules, as if the batch had held only its records
(``domain/settlement.py``). Pieces share no key, so each goes on by itself, in any order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import msgspec

from .batching import Entry
from .deferred import digest_of
from .outcome import Outcome
from .settlement import GiveUp, RetryPolicy, Settlement, Step


@dataclass(frozen=True, slots=True)
class Cut:
    """What came of a piece: the entries that are settled now, and the pieces that go on."""

    settled: Sequence[Entry]
    pieces: Sequence[Piece] = ()


class Piece:
    """Records that go to the handler together, and the keys that they hold. ``request_id`` and ``blocked`` belong to
    its user; ``batch`` is the same for all pieces of a batch, and no other's."""

    __slots__ = ("_settlement", "batch", "blocked", "entries", "keys", "policy", "request_id")

    def __init__(
        self,
        policy: RetryPolicy,
        entries: Sequence[Entry],
        keys: Collection[bytes] | None = None,
        batch: object | None = None,
    ) -> None:
        self.batch = batch or object()
        self.policy = policy
        self.entries = entries
        self.keys = dict.fromkeys([entry.key for entry in entries] if keys is None else keys)
        self.request_id = ""
        self.blocked = False
        self._settlement = Settlement(policy, [entry.record for entry in entries])

    @property
    def stands_alone(self) -> bool:
        """Whether it is of one key."""
        return len(self.keys) == 1

    @property
    def invocations(self) -> int:
        """How often the records that are being tried were handed over."""
        return self._settlement.invocations

    def next(self, now: float) -> Step:
        """What to do now (Unix seconds): a call after a pause, or a dead letter."""
        step = self._settlement.next(now)
        if step is None:
            raise RuntimeError("a piece that is settled goes on no more")
        return step

    def try_again(self) -> None:
        """One more attempt, although its retries are used up: they say nothing of its records."""
        self._settlement.try_again()

    def split(self) -> tuple[Piece, Piece | None]:
        """The first key of this piece, of which nothing was tried by itself, and a piece of the others."""
        if self.stands_alone:
            return self, None
        first, *others = self.keys
        return self._of((first,)), self._of(dict.fromkeys(others))

    def _of(self, keys: Collection[bytes]) -> Piece:
        return self._part([entry for entry in self.entries if entry.key in keys], keys)

    def _part(self, entries: Sequence[Entry], keys: Collection[bytes] | None = None) -> Piece:
        return Piece(self.policy, entries, keys, self.batch)

    def expired(self, step: GiveUp) -> tuple[Piece, Piece | None]:
        """This piece without the keys that have nothing in the dead letter, and a piece of those."""
        given_up = {entry.key for entry in self.entries[: len(step.records)]}
        rest = [entry for entry in self.entries if entry.key not in given_up]
        if not rest:
            return self, None
        first = Piece(self.policy, [entry for entry in self.entries if entry.key in given_up], given_up, self.batch)
        first.request_id = self.request_id
        first._settlement.continue_from(self._settlement, len(step.records))
        return first, self._part(rest)

    def answered(self, outcome: Outcome) -> Cut:
        """The last call ended so."""
        if self.stands_alone or outcome.kind == "not_invoked":
            return self._rest(len(self._settlement.answered(outcome)))
        if outcome.kind == "ok":
            return Cut(self.entries)
        if outcome.kind == "partial":
            return self._by_key(outcome)
        keys = list(self.keys)
        left = dict.fromkeys(keys[: len(keys) // 2])
        right = dict.fromkeys(keys[len(keys) // 2 :])
        return Cut((), [self._of(left), self._of(right)])

    def gave_up(self) -> Cut:
        """The records of the last dead letter are durable at its destination."""
        return self._rest(len(self._settlement.gave_up()))

    def keep_current(self) -> Sequence[Entry]:
        """Give up what waits behind the records that are being tried; returns it. The piece stands alone."""
        count = self._settlement.keep_current()
        later, self.entries = self.entries[count:], self.entries[:count]
        return later

    def _rest(self, settled: int) -> Cut:
        done, self.entries = self.entries[:settled], self.entries[settled:]
        if not settled:
            return Cut((), (self,))
        if not self.entries:
            return Cut(done)
        if self.stands_alone:
            return Cut(done, (self,))
        return Cut(done, (self._part(self.entries),))  # some of its keys are settled as a whole

    def _by_key(self, outcome: Outcome) -> Cut:
        """Every key by itself: settled up to its first failed record. What the handler may not have come to goes on as
        a piece of its own."""
        failed = set(outcome.failed)
        failing = dict.fromkeys(entry.key for entry in self.entries if entry.record.sequence_number in failed)
        settled = [entry for entry in self.entries if entry.key not in failing]
        pieces: list[Piece] = []
        if not outcome.exact:
            lowest = min(int(entry.record.number) for entry in self.entries if entry.record.sequence_number in failed)
            untried = [entry for entry in settled if int(entry.record.number) > lowest]
            settled = [entry for entry in settled if int(entry.record.number) < lowest]
            pieces += [self._part(untried)] if untried else []
        for key in failing:
            piece = self._of((key,))
            own = tuple(number for entry in piece.entries if (number := entry.record.sequence_number) in failed)
            cut = piece.answered(msgspec.structs.replace(outcome, failed=own))
            settled += cut.settled
            pieces += cut.pieces
        settled.sort(key=lambda entry: int(entry.record.number))
        return Cut(settled, pieces)


class ParkedPiece:
    """Records of one key that go to the dead letters, in stream order: the first ``given_up`` of them because of
    ``step``, the others because the key is parked."""

    __slots__ = ("_under_way", "digest", "entries", "given_up", "keys", "step")

    stands_alone = True

    def __init__(self, key: bytes, entries: Sequence[Entry], step: GiveUp | None = None, given_up: int = 0) -> None:
        self.keys: Collection[bytes] = (key,)
        self.digest = digest_of(key)
        self.entries = entries
        self.step = step
        self.given_up = given_up
        self._under_way = 0

    def begin(self, most: int) -> Sequence[Entry]:
        """The next records whose letters are sent, at most so many; until ``sent``."""
        self._under_way = min(most, len(self.entries))
        return self.entries[: self._under_way]

    def steps(self) -> list[GiveUp]:
        """Why each of the records under way becomes a letter of its own."""
        found = []
        for place, entry in enumerate(self.entries[: self._under_way]):
            if self.step is not None and place < self.given_up:
                found.append(replace(self.step, records=[entry.record]))
            else:
                found.append(GiveUp([entry.record], "KeyParked", 0, None, invoked=False))
        return found

    def sent(self) -> None:
        """The letters under way are durable, and counted."""
        self.given_up = max(0, self.given_up - self._under_way)
        self.entries = self.entries[self._under_way :]
        self._under_way = 0

    def keep_current(self) -> Sequence[Entry]:
        """Give up what waits behind the records that are under way, or behind the first one; returns it."""
        count = max(1, self._under_way, self.given_up)
        later, self.entries = self.entries[count:], self.entries[:count]
        return later
