"""Bulletins (``domain/bulletin.py``) in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consumer.domain.bulletin import Bulletin, Change
from consumer.testing.memory_client import MemoryClient

CHANGE_BYTES = 120  # of a change in the bulletin


class MemoryBulletins(MemoryClient):
    """``ports.BulletinStore``."""

    async def bulletin(self, label: str) -> Bulletin:
        def read() -> Bulletin | None:
            found = self._table.bulletins.get((self._application, label))
            self._table.read("bulletin", [CHANGE_BYTES * len(found.changes) if found else 0])
            return found

        return await self._read("bulletin", read) or Bulletin()  # as what does not parse counts on DynamoDB

    async def begin_listing(self, label: str, seen: Bulletin, lister: str) -> bool:
        begun = False

        def apply() -> bool:
            nonlocal begun
            now = self._bulletin(label)
            if now.turn == seen.turn:
                self._post(label, replace(now, turn=seen.turn + 1, lister=lister, listing=True))
                begun = True
            return begun

        return await self._write("begin_listing", apply)

    async def end_listing(self, label: str, turn: int, lister: str, *, rows: int = 0, failed: bool = False) -> None:
        def apply() -> None:
            now = self._bulletin(label)
            if (now.turn, now.lister) == (turn, lister):
                over = replace(now, listing=False, lister="" if failed else lister, rows=rows or now.rows)
                self._post(label, over)

        await self._write("end_listing", apply)

    async def post(self, label: str, changes: Sequence[Change]) -> None:
        await self._write("post", lambda: self._post(label, self._bulletin(label).with_changes(changes)))

    def _bulletin(self, label: str) -> Bulletin:
        return self._table.bulletins.get((self._application, label), Bulletin())

    def _post(self, label: str, bulletin: Bulletin) -> None:
        self._table.bulletins[self._application, label] = bulletin
