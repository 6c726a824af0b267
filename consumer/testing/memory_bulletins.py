"""Bulletins (``domain/bulletin.py``) in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consumer.domain.bulletin import MOST_POSTS, Bulletin, Change, Post
from consumer.testing.memory_client import MemoryClient


class MemoryBulletins(MemoryClient):
    """``ports.BulletinStore``."""

    async def bulletin(self, label: str) -> Bulletin:
        def read() -> Bulletin:
            self._table.read("bulletin", [0])
            return self._bulletin(label)

        return await self._read("bulletin", read)

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

    async def expect_rows(self, label: str, turn: int, lister: str, rows: int) -> None:
        def apply() -> None:
            now = self._bulletin(label)
            if (now.turn, now.lister) == (turn, lister):
                self._post(label, replace(now, rows=rows))

        await self._write("expect_rows", apply)

    async def end_listing(self, label: str, turn: int, lister: str, *, rows: int = 0, failed: bool = False) -> None:
        def apply() -> None:
            now = self._bulletin(label)
            if (now.turn, now.lister) == (turn, lister):
                over = replace(now, listing=False, lister="" if failed else lister, rows=rows or now.rows)
                self._post(label, over)

        await self._write("end_listing", apply)

    async def post(self, label: str, changes: Sequence[Change]) -> int:
        """In two steps, as on DynamoDB: it is counted before it is there."""

        def count() -> int:
            now = self._bulletin(label)
            self._post(label, replace(now, posts=now.posts + 1, changes=now.changes + len(changes)))
            return now.posts + 1

        number = await self._write("post", count)
        kept = self._table.posts.setdefault((self._application, label), {})

        def put() -> None:
            kept[number % MOST_POSTS] = Post(number, tuple(changes))

        await self._write("post", put)
        return number

    async def posts(self, label: str, first: int, last: int) -> list[Post]:
        def read() -> list[Post]:
            kept = self._table.posts.get((self._application, label), {})
            found = [post for post in kept.values() if first <= post.number <= last]
            self._table.read("posts", [post.size for post in found])
            return found

        return await self._read("posts", read)

    def _bulletin(self, label: str) -> Bulletin:
        return self._table.bulletins.get((self._application, label), Bulletin())

    def _post(self, label: str, bulletin: Bulletin) -> None:
        self._table.bulletins[self._application, label] = bulletin
