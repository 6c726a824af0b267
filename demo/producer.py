"""Writes a live mix of INSERT, MODIFY and REMOVE to the demo table, and keeps the list of what must come out."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

Change = tuple[str, int]  # event name and version of the item


class Producer:
    """One writer per lane, so that writes to one key are never concurrent and the expected order is exact."""

    def __init__(self, dynamodb: Any, table: str, *, keys: int = 40, lanes: int = 8, seed: int = 7) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._random = random.Random(seed)
        self._keys = [[f"order-{n:03d}" for n in range(keys)][lane::lanes] for lane in range(lanes)]
        self._versions: dict[str, int] = defaultdict(int)
        self._exists: set[str] = set()
        self.expected: dict[str, list[Change]] = defaultdict(list)
        self.produced = 0
        self.poisoned = 0

    def changes(self) -> Iterator[tuple[str, Change]]:
        """All that was written so far."""
        return ((key, change) for key, changes in self.expected.items() for change in changes)

    async def run(self, stop: asyncio.Event) -> None:
        """Write until ``stop`` is set."""
        async with asyncio.TaskGroup() as group:
            for keys in self._keys:
                group.create_task(self._lane(keys, stop))

    async def _lane(self, keys: list[str], stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._write(self._random.choice(keys))
            await asyncio.sleep(self._random.uniform(0.02, 0.08))

    async def _write(self, key: str) -> None:
        if key in self._exists and self._random.random() < 0.15:
            await self._dynamodb.delete_item(TableName=self._table, Key={"pk": {"S": key}})
            self._exists.discard(key)
            self._note(key, "REMOVE")
            return
        self._versions[key] += 1
        poison = self._random.random() < 0.01
        self.poisoned += poison
        item = {
            "pk": {"S": key},
            "version": {"N": str(self._versions[key])},
            "total": {"N": f"{self._random.uniform(5, 500):.2f}"},
            "poison": {"BOOL": poison},
        }
        await self._dynamodb.put_item(TableName=self._table, Item=item)
        self._note(key, "MODIFY" if key in self._exists else "INSERT")
        self._exists.add(key)

    def _note(self, key: str, event: str) -> None:
        self.expected[key].append((event, self._versions[key]))
        self.produced += 1
