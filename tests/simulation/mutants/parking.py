"""Mistakes about parked keys, one for each rule of ``consumer/domain/parking.py``."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

ROWS = "consumer/worker/shard/known_parked_keys.py"
PIECES = "consumer/worker/shard/parked_pieces.py"
STORE = "consumer/testing/memory_parking.py"
ANY_HARM = ("G1 complete", "G2 order", "liveness", "park complete", "park followers", "park freed", "park ordinals")

PARKING = (
    Mutant(
        "a letter is sent before its key is parked",
        PIECES,
        'elif fate == "handle" and piece.step is not None:',
        'elif fate == "never" and piece.step is not None:',
        ("park mark first",),
        family="parking",
        quick=True,
    ),
    Mutant(
        "records leave the books before their letters are counted",
        PIECES,
        "await self._rows.count(piece.digest, count + len(group), group[-1].record.number, self._draining)\n"
        '        self._subscription.settle(group, "dead_lettered")',
        'self._subscription.settle(group, "dead_lettered")\n'
        "        await self._rows.count(piece.digest, count + len(group), group[-1].record.number, self._draining)",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "what was handled before the key was parked becomes a letter",
        "consumer/domain/parking.py",
        "if number < int(own.first) or (own.last and number <= int(own.last)):",
        "if own.last and number <= int(own.last):",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a key is free although an owner has not answered",
        STORE,
        "if mine is None or mine.park_id != key.park_id or mine.closed != key.nonce:",
        "if mine is None or mine.park_id != key.park_id:",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "the redrive does not wait for the answers of owners",
        "consumer/redrive/parked.py",
        "unanswered = [row for row in found.shards if row.closed != closing.nonce]",
        "unanswered = [row for row in found.shards if not row.closed]",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "an owner answers while letters are under way",
        PIECES,
        "                if digest not in self._active:\n",
        "                if digest:\n",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a shard makes its row while the key is closing",
        STORE,
        'may_join = known is not None and known.state == "parked" and known.park_id == key.park_id and absent',
        "may_join = known is not None and known.park_id == key.park_id and absent",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a child believes what it knew of a key before its parent was through",
        "consumer/worker/shard/catch_up.py",
        "                if key.waits_for_parent:\n                    await self._parked.look",
        "                if False:\n                    await self._parked.look",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "an older view of a key is believed",
        ROWS,
        "if began < self._known_at.get(digest, 0):",
        "if began < 0:",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "two redrives work on one key",
        "consumer/redrive/parked.py",
        "if found.redriver is not None and not await self._has_ended(",
        "if found.redriver is not None and await self._has_ended(",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a redrive that has lost its claim writes on",
        STORE,
        "if known is None or (known.park_id, known.redriver, known.claim) != (key.park_id, key.redriver, key.claim):",
        "if known is None or known.park_id != key.park_id:",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a redrive goes on behind a letter that failed",
        "consumer/redrive/parked.py",
        "through = sum(end <= handled for end in ends)",
        "through = len(ends)",
        ANY_HARM,
        family="parking",
        quick=True,
    ),
    Mutant(
        "blocked keys beyond the bound are forgotten",
        "consumer/worker/shard/key_order.py",
        "self._parked.give_up(*oldest)",
        "oldest[0]",
        ANY_HARM,
        family="parking",
    ),
)
