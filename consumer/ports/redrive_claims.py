"""What redrives write down: claims on places that hold dead letters (``domain/redrive_claim.py``), and letters that
somebody gave up for lost."""

from __future__ import annotations

from typing import Protocol

from consumer.domain.parking import ParkedShard
from consumer.domain.redrive_claim import Claim


class RedriveClaims(Protocol):
    """Rows of the lease table: ``pk = application#redrive, sk = place``."""

    async def claim(self, place: str) -> Claim | None:
        """The row, read consistently."""

    async def take_claim(self, place: str, seen: Claim | None, owner: str) -> Claim | None:
        """Write the claim for the session ``owner``, IF it still is as ``seen`` (None: absent). None when refused. An
        ambiguous answer is resolved: what is there afterwards with this owner was written by it, because a session
        takes a place once."""

    async def drop_claim(self, held: Claim) -> None:
        """Delete the row IF it still is as ``held``."""

    async def note_lost_letter(self, shard: ParkedShard, ordinal: int, reason: str) -> None:
        """A letter of a parked key is passed over, although its records were not handled: leave a row that stays."""
