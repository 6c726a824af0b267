"""``ports.RedriveClaims`` on the lease table."""

from __future__ import annotations

from typing import Final

from consumer.aws import lease_items as items
from consumer.aws.item_values import lenient_number, lenient_text
from consumer.aws.registry_and_sessions import ApplicationRows
from consumer.aws.table_rows import Clause, Item, key
from consumer.domain.parking import ParkedShard
from consumer.domain.redrive_claim import Claim

PARTITION: Final = "redrive"
LOST: Final = "lost"


class DynamoDBRedriveClaims(ApplicationRows):
    """Claims of one application. Every write is conditional on the owner and the epoch that were read."""

    @property
    def _claims(self) -> str:
        return items.partition(self._application, PARTITION)

    async def claim(self, place: str) -> Claim | None:
        found = await self._rows.get(self._claims, place)
        return _claim(place, found) if found else None

    async def take_claim(self, place: str, seen: Claim | None, owner: str) -> Claim | None:
        taken = Claim(place, owner, (seen.epoch if seen else 0) + 1)
        content = {"owner": items.text(owner), "epoch": items.number(taken.epoch)}
        if seen is None:
            written = await self._rows.put_new(key(self._claims, place) | content)
        else:
            written = await self._rows.update(self._claims, place, content, _as(seen))
        if not written.refused:
            return taken
        return taken if await self.claim(place) == taken else None

    async def drop_claim(self, held: Claim) -> None:
        await self._rows.delete(self._claims, held.place, _as(held))

    async def note_lost_letter(self, shard: ParkedShard, ordinal: int, reason: str) -> None:
        place = "#".join((LOST, shard.digest, shard.park_id, shard.label, shard.shard_id, str(ordinal)))
        content = {"reason": items.text(reason), "key_digest": items.text(shard.digest)}
        await self._rows.put_new(key(self._claims, place) | content)


def _as(seen: Claim) -> list[Clause]:
    return [("owner", "=", items.text(seen.owner)), ("epoch", "=", items.number(seen.epoch))]


def _claim(place: str, found: Item) -> Claim:
    return Claim(place, lenient_text(found, "owner"), int(lenient_number(found, "epoch")))
