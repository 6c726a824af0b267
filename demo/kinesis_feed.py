"""Stands in for DynamoDB's own Kinesis destination: the changes of a table, out of its own stream, become records of a
Kinesis stream as DynamoDB puts them there. (That of the local AWS puts records of another shape.)

So a tenth of them comes twice, under another number, and some come after a newer change of their item.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from consumer.domain.stream_record import StreamRecord
from consumer.ports.source import Position, StreamSource

Envelope = dict[str, Any]  # what DynamoDB puts, as docs/kinesis.md shows it

DOUBLED: Final = 0.1  # share of the changes
DOUBLE_AFTER: Final = (0.2, 3.0)  # seconds between the two records of a change
LATE: Final = 0.05  # share of the changes
LATE_BY: Final = (0.3, 2.0)  # seconds, in which a newer change of the item may pass
PAUSE: Final = 0.1  # seconds between two looks at the table's stream
MOST: Final = 500  # records of one PutRecords


class KinesisFeed:
    """``put`` is told of every record, in the order of the stream."""

    def __init__(
        self,
        source: StreamSource,
        kinesis: Any,
        stream: str,
        *,
        put: Callable[[Envelope], None] = lambda envelope: None,
        seed: int = 7,
    ) -> None:
        self._source = source
        self._kinesis = kinesis
        self._stream = stream
        self._put = put
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Envelope]] = []
        self._count = 0
        self._last_micros = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set, and everything that was written before is put."""
        table = (await self._source.describe()).table_name
        [shard] = await self._source.list_shards()  # the local AWS has one for each table
        iterator = await self._source.iterator(shard.shard_id, Position("TRIM_HORIZON"))
        while True:
            ends = stop.is_set()
            page = await self._source.get_records(shard.shard_id, iterator, 1000)
            for record in page.records:
                self._schedule(self._envelope(record, table))
            if page.next_iterator is None:
                raise RuntimeError(f"the stream of {table} has ended")
            iterator = page.next_iterator
            if ends and not page.records:
                await self._put_due(float("inf"))
                return
            await self._put_due(time.monotonic())
            await asyncio.sleep(PAUSE)

    def _schedule(self, envelope: Envelope) -> None:
        moment = time.monotonic()
        if self._random.random() < LATE:
            moment += self._random.uniform(*LATE_BY)
        self._push(moment, envelope)
        if self._random.random() < DOUBLED:
            self._push(moment + self._random.uniform(*DOUBLE_AFTER), envelope)

    def _push(self, moment: float, envelope: Envelope) -> None:
        self._count += 1
        heapq.heappush(self._due, (moment, self._count, envelope))

    async def _put_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            batch: list[Envelope] = []
            while self._due and self._due[0][0] <= now and len(batch) < MOST:
                batch.append(heapq.heappop(self._due)[2])
            while batch:
                batch = await self._put_batch(batch)

    async def _put_batch(self, batch: list[Envelope]) -> list[Envelope]:
        """What was refused."""
        records = [{"Data": json.dumps(one).encode(), "PartitionKey": _partition_key(one)} for one in batch]
        answer = await self._kinesis.put_records(StreamName=self._stream, Records=records)
        refused = []
        for envelope, result in zip(batch, answer["Records"], strict=True):
            if "ErrorCode" in result:
                refused.append(envelope)
            else:
                self._put(envelope)
        return refused

    def _envelope(self, record: StreamRecord, table: str) -> Envelope:
        event = record.as_event()
        change = event["dynamodb"]
        self._last_micros = max(time.time_ns() // 1000, self._last_micros + 1)
        return {
            "awsRegion": event["awsRegion"],
            "eventID": str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            "eventName": event["eventName"],
            "userIdentity": None,
            "recordFormat": "application/json",
            "tableName": table,
            "dynamodb": {
                "ApproximateCreationDateTime": self._last_micros,
                **{name: change[name] for name in ("Keys", "NewImage", "OldImage") if name in change},
                "SizeBytes": change["SizeBytes"],
                "ApproximateCreationDateTimePrecision": "MICROSECOND",
            },
            "eventSource": "aws:dynamodb",
        }


def _partition_key(envelope: Envelope) -> str:
    """DynamoDB's looks so; how it is made is not known, but all changes of an item have the same."""
    keys = json.dumps(envelope["dynamodb"]["Keys"], sort_keys=True)
    return hashlib.md5(keys.encode(), usedforsecurity=False).hexdigest().upper()
