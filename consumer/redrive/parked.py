"""Brings back the letters of a parked key, in order, while its records go on coming; frees the key at the end.

The letters are handled shard by shard, parents before their children, ordinal by ordinal. What is handled is written
down (``done``) before the letter is removed, so a redrive that ends in between costs one letter that is handled again,
never one that is lost. When all letters are done the key is set ``closing``; owners answer (``domain/parking.py``), and
one transaction frees it. A key that cannot be freed is left parked, with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal, Protocol

import structlog

from consumer.domain.lease import LeaseRow, duration_of
from consumer.domain.parking import Parked, ParkedKey, ParkedShard
from consumer.domain.stream_record import StreamRecord
from consumer.ports.parked_letters import ParkedLetter, ParkedLetterBox
from consumer.ports.parking import MOST_DROPPED, MOST_FREED, ParkedRedrives
from consumer.redrive.reading_again import ReadingAgain, events_of

log = structlog.get_logger()

LOOK = 0.5  # seconds between looks at the answers of owners
ANSWERS_WITHIN = 20.0  # seconds for all owners to answer; they look every second
LETTER_WITHIN = 10.0  # seconds for a letter that is counted to be found
LOOKED_FOR = 200  # letters at a time, once one was missing
AT_ONCE = 10  # letters of a key that the handler gets together; so many may be handled again after a crash
MOST_UNCOUNTED = 10  # letters of a key under way at a time
SURE_AFTER = 1.5  # durations of another redrive within which it is alive again, or fenced
ROUNDS = 20  # closings that end without the key being freed, because records come faster
TAKEN_OVER = "another redrive has taken over"
HALTED = (
    "{} has letters of it and is halted: {} (set source.on_gap: continue and restart its worker, which leaves a gap "
    "row and goes on; then redrive again)"
)
QUARANTINED = (
    "{} has letters of it and is quarantined, because its lease row cannot be read: {} (put the row right, as "
    "shard.quarantined in the log says; then redrive again)"
)
_UNFINISHED = LeaseRow("")

Left = (
    Literal["failed", "missing", "unreadable", "redacted", "claimed", "busy"]
    | Literal["halted", "quarantined", "damaged", "too_many_shards", "lost"]
)


@dataclass(frozen=True, slots=True)
class KeyResult:
    """What came of one key. ``left``: why it is still parked; None when it is free. ``handled`` counts letters."""

    digest: str
    handled: int
    left: Left | None = None
    detail: str = ""


class RedriveStore(ParkedRedrives, Protocol):
    """The lease table, as far as a redrive needs it."""

    async def lease(self, label: str, shard_id: str) -> LeaseRow | None:
        """One lease row, read consistently."""


class Member(Protocol):
    """The redrive as a member of the fleet: others fence it when it is silent."""

    @property
    def incarnation(self) -> str: ...
    @property
    def duration(self) -> float:
        """Seconds: ``leases.duration``."""

    def require(self) -> None:
        """Right before every step with an effect: LeaseLost or SessionFenced when this member may not go on."""

    async def is_dead(self, incarnation: str) -> bool:
        """Whether another member is fenced for good; it is fenced if it was silent for long enough."""


Handle = Callable[[Sequence[StreamRecord], ParkedShard], Awaitable[int]]
"""Runs the handler over records of one key, in their order; returns how many of them, from the first on, it handled."""

NoteLoss = Callable[[ParkedShard, int, str], Awaitable[None]]
"""Leaves a durable trace of a letter (its shard row, its ordinal, why) that is passed over without being handled."""


@dataclass(frozen=True, slots=True)
class ParkedRedrive:
    """Redrives parked keys, each by itself. ``token`` never gives the same twice. Without ``note_loss`` a letter that
    is not there, or cannot be read, leaves its key parked; with it the letter is passed over. ``again`` reads the items
    of redacted letters."""

    store: RedriveStore
    box: ParkedLetterBox
    handle: Handle
    member: Member
    token: Callable[[], str]
    note_loss: NoteLoss | None = None
    again: ReadingAgain = ReadingAgain(None)
    _living: set[str] = field(default_factory=set)  # other redrives

    async def redrive(self, digest: str) -> KeyResult:
        """One key, until it is free or cannot be freed now. Unavailable, and what ``Member.require`` raises: then the
        key stays as it is, and another redrive may go on with it."""
        parked = await self.store.parked_key(digest)
        if parked.damaged:
            return KeyResult(digest, 0, "damaged", parked.damaged[0].problem)
        found = parked.key
        if found is None:
            return KeyResult(digest, 0)
        other = (found.redriver or "").partition("#")[0]
        if other not in ("", self.member.incarnation) and not await self._has_ended(other):
            return KeyResult(digest, 0, "claimed", f"{found.redriver} works on it")
        self.member.require()
        key = await self.store.claim_parked(found, f"{self.member.incarnation}#{self.token()}")
        if key is None:
            return KeyResult(digest, 0, "claimed", "another redrive was faster")
        work = _Key(self, key)
        if found.redriver is not None:  # it may have ended between handling letters and removing them
            await work.remove_done()
        result = await work.run()
        if result.left not in (None, "lost"):
            await self.store.release_parked(key)
        return result

    async def _has_ended(self, redriver: str) -> bool:
        """Whether another redrive is dead. One that says nothing is given the time that it takes to be sure, once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SURE_AFTER * (duration_of(redriver) or self.member.duration)
        while not await self.member.is_dead(redriver):
            if redriver in self._living or loop.time() > deadline:
                self._living.add(redriver)
                return False
            await asyncio.sleep(LOOK)
        return True


class _Key:
    """One key, from the claim on."""

    def __init__(self, work: ParkedRedrive, key: ParkedKey) -> None:
        self._store = work.store
        self._box = work.box
        self._handle = work.handle
        self._member = work.member
        self._token = work.token
        self._note_loss = work.note_loss
        self._again = work.again
        self._key = key
        self._handled = 0
        self._counted: dict[tuple[str, str], list[tuple[int, float]]] = {}  # letters of a shard, and since when
        self._missing: set[tuple[str, str, int]] = set()  # ordinals of a shard that were looked for in vain

    async def remove_done(self) -> None:
        """Letters that an earlier redrive has handled, and did not come to remove."""
        found = await self._view()
        if self._not_mine(found) is None:
            await self._remove(
                (row, n) for row in found.shards for n in range(row.done, max(0, row.done - AT_ONCE), -1)
            )

    async def run(self) -> KeyResult:
        for _ in range(ROUNDS):
            found, left = await self._nearly_all()
            if left is None and len(found.shards) > MOST_FREED:
                left = await self._drop_finished(found)
            if left is not None:
                return left
            self._member.require()
            closing = await self._store.begin_closing(self._key, self._token())
            if closing is None:
                return self._left("lost", TAKEN_OVER)
            ended = await self._close(closing)
            if ended is not None:
                return ended
        return self._left("busy", "its records come faster than they are handled")

    async def _nearly_all(self) -> tuple[Parked, KeyResult | None]:
        """Handle what there is, and what has arrived meanwhile, until little is left for the time of the closing."""
        for _ in range(ROUNDS):
            found = await self._view()
            left = self._not_mine(found) or await self._work_off(found)
            if left is not None:
                return found, left
            found = await self._view()
            if sum(row.letters - row.done for row in found.shards) <= AT_ONCE:
                break
        return found, self._not_mine(found)

    async def _drop_finished(self, found: Parked) -> KeyResult | None:
        """One transaction frees a key, and takes only so many rows: those of shards that get no further letters go
        before. None when there are few enough then."""
        finished: list[tuple[ParkedShard, LeaseRow | None]] = []
        for row in found.shards:
            lease = await self._store.lease(row.label, row.shard_id) if row.done == row.letters else _UNFINISHED
            if lease is None or (lease.settled and not lease.corrupt):
                finished.append((row, lease))
        for start in range(0, len(finished), MOST_DROPPED):
            self._member.require()
            await self._store.drop_finished(self._key, finished[start : start + MOST_DROPPED])
        found = await self._view()
        return self._not_mine(found) or self._too_many(found)

    async def _close(self, closing: ParkedKey) -> KeyResult | None:
        """Until the key is free (a result), or parked again (None)."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ANSWERS_WITHIN
        while True:
            found = await self._view()
            if self._not_mine(found) is not None or found.key is None:
                return self._not_mine(found)
            if (found.key.state, found.key.nonce) != ("closing", closing.nonce):
                return None
            left = await self._work_off(found)
            if left is not None:
                return left
            found = await self._view()
            left = self._too_many(found)  # one has joined right before
            if left is not None:
                return left
            unanswered = [row for row in found.shards if row.closed != closing.nonce]
            for row in unanswered:
                left = await self._answer_for_owner(closing, row)
                if left is not None:
                    return left
            all_done = not unanswered and all(row.done == row.letters for row in found.shards)
            if all_done:
                self._member.require()
                if await self._store.free_parked(closing, found.shards):
                    log.info("key.freed", key_digest=closing.digest, letters=self._handled)
                    # Sent by owners that did not come to count them: no books say that their records are settled.
                    uncounted = range(1, MOST_UNCOUNTED + 1)
                    await self._remove((row, row.letters + more) for row in found.shards for more in uncounted)
                    return KeyResult(closing.digest, self._handled)
            if (unanswered or all_done) and loop.time() > deadline:
                waiting = ", ".join(row.shard_id for row in unanswered)
                why = f"the owners of {waiting} have not answered" if waiting else "its rows are not as they should be"
                return self._left("busy", why)
            await asyncio.sleep(LOOK if unanswered or all_done else 0)

    async def _answer_for_owner(self, closing: ParkedKey, row: ParkedShard) -> KeyResult | None:
        """A shard that nobody works on gets no further letters: what it has is final. The result is for one that a
        person has to look after first: its owner, if it has any, does not answer."""
        lease = await self._store.lease(row.label, row.shard_id)
        if lease is not None and lease.corrupt:
            return self._left("quarantined", QUARANTINED.format(row.shard_id, lease.corrupt))
        if lease is None or lease.settled or lease.owner is None or await self._member.is_dead(lease.owner):
            self._member.require()
            await self._store.close_for_owner(closing, row, lease)
        elif lease.state == "halted":
            return self._left("halted", HALTED.format(row.shard_id, lease.note))
        return None

    # --- letters ---------------------------------------------------------------------------------------

    async def _work_off(self, found: Parked) -> KeyResult | None:
        """Handle all letters that are counted; None when that is done."""
        for row in in_order(found.shards):
            done = row.done
            while done < row.letters:
                done, left = await self._next(row, done)
                if left is not None:
                    return left
        return None

    async def _next(self, row: ParkedShard, done: int) -> tuple[int, KeyResult | None]:
        """Handle the next letters of a shard; returns up to which ordinal they are done."""
        found: list[list[ParkedLetter]] = []
        if (row.label, row.shard_id, done + 1) not in self._missing:
            found = await self._find(row, range(done + 1, min(done + AT_ONCE, row.letters) + 1))
            if not found and self._note_loss is not None:
                await self._look_for_more(row, done)
        if not found or not _readable(found[0]):
            why: Left = "unreadable" if found else "missing"
            what = found[0][0].problem if found else "it is not there"
            return await self._without(row, done, why, f"letter {done + 1} of {row.letters} of {row.shard_id}: {what}")
        found = list(takewhile(_readable, found))
        events = await events_of([_readable(copies) for copies in found], self._again)
        ends = events.ends
        if not ends:
            return await self._without(
                row, done, "redacted", f"letter {done + 1} of {row.letters} of {row.shard_id} {events.problem}"
            )
        found = found[: len(ends)]
        self._member.require()
        handled = await self._handle(events.records, row)
        through = sum(end <= handled for end in ends)
        if through:
            self._handled += through
            self._member.require()
            if not await self._store.redriven(self._key, replace(row, done=done + through)):
                return done, self._left("lost", TAKEN_OVER)
            async with asyncio.TaskGroup() as tasks:
                for letter in (one for letters in found[:through] for one in letters):
                    tasks.create_task(self._box.remove(letter))
        if through < len(found):
            return done, self._left("failed", f"letter {done + through + 1} of {row.letters} of {row.shard_id}")
        return done + through, None

    async def _without(self, row: ParkedShard, done: int, why: Left, detail: str) -> tuple[int, KeyResult | None]:
        """The next letter cannot be had: pass over it if that was asked for, and never without a trace."""
        if self._note_loss is None:
            return done, self._left(why, detail)
        self._member.require()
        await self._note_loss(row, done + 1, detail)
        where = {"key_digest": row.digest, "shard_id": row.shard_id, "ordinal": done + 1}
        log.error("dead_letter.passed_over", **where, reason=detail)
        if not await self._store.redriven(self._key, replace(row, done=done + 1)):
            return done, self._left("lost", TAKEN_OVER)
        return done + 1, None

    async def _find(self, row: ParkedShard, ordinals: range) -> list[list[ParkedLetter]]:
        """Those of the letters that are there, without a gap. One is durable before it is counted, but a queue may show
        it late."""
        loop = asyncio.get_running_loop()
        counted = self._counted[row.label, row.shard_id]
        deadline = LETTER_WITHIN + next(since for letters, since in counted if letters >= ordinals[0])
        while True:
            found = list(takewhile(bool, await self._all(row, ordinals)))
            if found or loop.time() > deadline:
                return found
            await asyncio.sleep(LOOK)

    async def _look_for_more(self, row: ParkedShard, done: int) -> None:
        """Which of the next letters are missing, too: so that a queue is not looked through for each of them."""
        ordinals = range(done + 1, min(done + LOOKED_FOR, row.letters) + 1)
        for ordinal, found in zip(ordinals, await self._all(row, ordinals), strict=True):
            if not found:
                self._missing.add((row.label, row.shard_id, ordinal))

    async def _all(self, row: ParkedShard, ordinals: range) -> list[list[ParkedLetter]]:
        async with asyncio.TaskGroup() as tasks:  # at once: a queue is looked through for all of them together
            finding = [tasks.create_task(self._box.find(row, ordinal)) for ordinal in ordinals]
        return [task.result() for task in finding]

    async def _remove(self, places: Iterable[tuple[ParkedShard, int]]) -> None:
        """Letters with these ordinals, as far as they are there."""
        async with asyncio.TaskGroup() as tasks:  # at once: a queue is looked through for all of them together
            finding = [tasks.create_task(self._box.find(row, ordinal)) for row, ordinal in places]
        for letter in (one for task in finding for one in task.result()):
            self._member.require()
            await self._box.remove(letter)

    # --- results ---------------------------------------------------------------------------------------

    async def _view(self) -> Parked:
        found = await self._store.parked_key(self._key.digest)
        for row in found.shards:
            counted = self._counted.setdefault((row.label, row.shard_id), [])
            if not counted or row.letters > counted[-1][0]:
                counted.append((row.letters, asyncio.get_running_loop().time()))
        return found

    def _not_mine(self, found: Parked) -> KeyResult | None:
        if found.damaged:
            return self._left("damaged", found.damaged[0].problem)
        if found.key is None:
            return KeyResult(self._key.digest, self._handled)
        if (found.key.park_id, found.key.redriver, found.key.claim) != (
            self._key.park_id,
            self._key.redriver,
            self._key.claim,
        ):
            return self._left("lost", TAKEN_OVER)
        return None

    def _too_many(self, found: Parked) -> KeyResult | None:
        """Whether one transaction takes all rows."""
        if len(found.shards) <= MOST_FREED:
            return None
        what = f"{len(found.shards)} shards have letters of it, and {MOST_FREED} can be closed together"
        return self._left("too_many_shards", f"{what}: try again later, when more of them are read to their end")

    def _left(self, why: Left, detail: str) -> KeyResult:
        log.warning("key.left_parked", key_digest=self._key.digest, reason=why, detail=detail, letters=self._handled)
        return KeyResult(self._key.digest, self._handled, why, detail)


def _readable(letters: Sequence[ParkedLetter]) -> list[ParkedLetter]:
    """Those copies of a letter whose records can be had."""
    return [letter for letter in letters if not letter.problem]


def in_order(shards: Sequence[ParkedShard]) -> list[ParkedShard]:
    """The rows of a key so that parents come before their children: streams follow each other by their labels, which
    are times; along a lineage numbers grow. Shards that are not related may stand in any order."""
    return sorted(shards, key=lambda row: (row.label, int(row.first), row.shard_id))
