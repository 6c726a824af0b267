"""``ports.RedriveClaims`` in memory."""

from __future__ import annotations

import asyncio

from consumer.domain.parking import ParkedShard
from consumer.domain.redrive_claim import Claim


class MemoryRedriveClaims:
    """The claims of one application; several sessions may share it. Before each write lies a point where others run."""

    def __init__(self) -> None:
        self.rows: dict[str, Claim] = {}
        self.lost: list[tuple[str, str, int, str]] = []  # key digest, shard, ordinal, reason

    async def claim(self, place: str) -> Claim | None:
        await asyncio.sleep(0)
        return self.rows.get(place)

    async def take_claim(self, place: str, seen: Claim | None, owner: str) -> Claim | None:
        await asyncio.sleep(0)
        if self.rows.get(place) != seen:
            return None
        self.rows[place] = Claim(place, owner, (seen.epoch if seen else 0) + 1)
        return self.rows[place]

    async def drop_claim(self, held: Claim) -> None:
        await asyncio.sleep(0)
        if self.rows.get(held.place) == held:
            del self.rows[held.place]

    async def note_lost_letter(self, shard: ParkedShard, ordinal: int, reason: str) -> None:
        await asyncio.sleep(0)
        self.lost.append((shard.digest, shard.shard_id, ordinal, reason))
