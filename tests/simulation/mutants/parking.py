"""Mistakes about parked keys. Some rules are kept twice, by the one who writes and by the condition of the write: no
single line breaks these, and ``tests/unit/domain/test_parking.py`` shows that they are needed."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

ROWS = "consumer/worker/shard/known_parked_keys.py"
PIECES = "consumer/worker/shard/parked_pieces.py"
STORE = "consumer/testing/memory_parking.py"
ANY_HARM = (
    "G1 complete",
    "G2 order",
    "liveness",
    "park complete",
    "park followers",
    "park freed",
    "park mark first",
    "park order",
    "park ordinals",
)

PARKING = (
    Mutant(
        "a letter is sent before its key is parked",
        PIECES,
        'elif fate == "handle" and piece.step is not None:',
        'elif fate == "never" and piece.step is not None:',
        ("park mark first",),
        family="parking",
    ),
    Mutant(
        "records leave the books before their letters are counted",
        PIECES,
        "        counted = await self._rows.count(piece.digest, count + len(group), last, self._draining)\n",
        '        self._subscription.settle(group, "dead_lettered")\n'
        "        await self._rows.count(piece.digest, count + len(group), last, self._draining)\n"
        "        piece.sent()\n"
        "        return True\n"
        "        counted = True\n",
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
        "a redrive answers for owners that live",
        "consumer/redrive/parked.py",
        "if lease is None or lease.settled or lease.owner is None or await self._member.is_dead(lease.owner):",
        "if lease is None or lease is not None:",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "an owner answers while letters are under way",
        PIECES,
        "if digest not in self._active and digest not in self._closing:",
        "if digest not in self._closing:",
        ANY_HARM,
        family="parking",
    ),
    Mutant(
        "a child believes what it knew of a key before its parent was through",
        "consumer/worker/shard/catch_up.py",
        "                if key.waits_for_parent:\n                    await self._parked.look",
        "                if False:\n                    await self._parked.look",
        ANY_HARM,
        family="parked_child",
        quick=True,
    ),
    Mutant(
        "a worker that has parked no key looks for no steps of redrives",
        "consumer/worker/parked_keys.py",
        "            self._some.set()  # it was parked",
        "            pass  # it was parked",
        ("liveness",),
        family="parked_child",
        quick=True,
    ),
    Mutant(
        "an older view of a key is believed",
        ROWS,
        "if began < self._known_at.get(digest, 0):",
        "if began < 0:",
        ANY_HARM,
        family="older_view",
        quick=True,
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
        family="blocked",
        quick=True,
    ),
)
