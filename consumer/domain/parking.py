"""Parked keys: after a record of a key is given up, its later records follow it to the dead letters, in order, until a
redrive has handled all of them and frees the key (``on_failure.order: park_key``).

A *key row* says that a key is parked; a *shard row* counts its letters from one shard. Both are durable, and belong to
the application: they outlive owners, shards and streams. The rules, searched in ``tests/unit/domain/park_model.py``:

* the mark comes first: no letter of a key is sent before its rows are durable;
* each letter has the next *ordinal* of its shard row. A letter counts (``letters``, ``last``) before its record leaves
  the books of the shard, so a record that is read again is a letter already, or becomes one with the same ordinal;
* what is read again from before ``first`` was handled before the key was parked;
* a shard without a row of its own makes one at the first record of a parked key, unless the key is closing;
* the row of a shard that is settled to its end gets no further letters and is never made again; its redrive may delete
  it, when all of its letters are done and while the key stays parked;
* to free a key, its redrive sets it ``closing`` with a nonce. Each owner of a shard that has a row finishes the letters
  under way, holds back what follows, and writes the nonce into its row: it is *closed*. When all rows are, and all of
  their letters are done, one transaction deletes them. An owner that has held for too long sets the key back to
  ``parked``, which makes the nonce worthless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ParkedState = Literal["parked", "closing"]


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """The row of a key. ``digest`` names it (``deferred.digest_of``), ``park_id`` this very time that it is parked.

    ``since`` in Unix seconds; ``reason`` is why its first record was given up, ``label``, ``shard_id`` and
    ``sequence_number`` (as handlers see it) say which one. ``nonce`` belongs to ``closing``. ``redriver`` is the
    incarnation of the redrive that works on the key, ``claim`` counts the redrives that did.
    """

    digest: str
    park_id: str
    state: ParkedState = "parked"
    since: float = 0.0
    reason: str = ""
    label: str = ""
    shard_id: str = ""
    sequence_number: str = ""
    nonce: str = ""
    redriver: str | None = None
    claim: int = 0


@dataclass(frozen=True, slots=True)
class ParkedShard:
    """The letters of a parked key from one shard: ``letters`` of them, ordinals 1 to that. ``first`` and ``last`` are
    the numbers (of the books) of the first record that was parked and of the last one that is a letter; ``last`` is
    empty before there is one. ``done``: ordinals that a redrive has handled. ``closed``: the nonce of the ``closing``
    that the owner has answered."""

    digest: str
    label: str
    shard_id: str
    park_id: str
    first: str
    letters: int = 0
    last: str = ""
    done: int = 0
    closed: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """A row that cannot be read: of the key itself, or of its letters from a shard. ``problem`` names the row, what is
    wrong with it and what to do."""

    digest: str
    problem: str
    label: str = ""
    shard_id: str = ""


@dataclass(frozen=True, slots=True)
class Parked:
    """A key row (None: the key is free, unless that row is among the ``damaged`` ones) and its shard rows, read at one
    moment."""

    key: ParkedKey | None
    shards: tuple[ParkedShard, ...] = ()
    damaged: tuple[Damage, ...] = ()

    @property
    def digest(self) -> str:
        """Of the key; empty when there is no row at all."""
        names = (self.key, *self.shards, *self.damaged)
        return next((one.digest for one in names if one is not None), "")

    def is_unsure(self, label: str, shard_id: str) -> bool:
        """Whether nothing can be said of the key's records in a shard: they wait until the row is put right."""
        return any(
            not one.label or not one.shard_id or (one.label, one.shard_id) == (label, shard_id) for one in self.damaged
        )

    def of(self, label: str, shard_id: str) -> ParkedShard | None:
        """The row of one shard."""
        return next((row for row in self.shards if (row.label, row.shard_id) == (label, shard_id)), None)


Fate = Literal["handle", "skip", "join", "letter", "hold"]


def fate(key: ParkedKey | None, own: ParkedShard | None, number: int) -> Fate:
    """What becomes of a record of a key that is not in the books as settled.

    ``handle``: the key is free. ``skip``: it was handled before the key was parked, or is a letter already. ``letter``:
    it is the next one. ``join``: the same, once the shard has a row. ``hold``: it waits until the key is free or parked
    again.

    Args:
        key: its row; None when it has none.
        own: the key's row of this shard; None when it has none.
        number: of the record, in the books.
    """
    if key is None:
        return "handle"
    if own is not None and own.park_id == key.park_id:
        if number < int(own.first) or (own.last and number <= int(own.last)):
            return "skip"
        return "hold" if key.state == "closing" else "letter"
    return "hold" if key.state == "closing" else "join"
