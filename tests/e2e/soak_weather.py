"""What happens to the two daemons of the soak: one kind of fault after the other, and what a record asks for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.e2e.conftest import Aws, client
from tests.e2e.soak_handler import ASKS
from tests.support.reshard_proxy import ProxyThread

Record = tuple[str, int]  # key and version
KEYS = [f"k{number:02d}" for number in range(48)]
ASK_EVERY = 6.0  # seconds
ASK_FOR = 1.5  # seconds for which a record fails: some of its retries, not all
PERIOD = 19.0  # seconds from one kind of fault to the next; not in step with the samples, one a minute
SPELL = 6.0  # seconds of each: below leases.duration, so that most of them cost no lease
LETTER_SPELL = 17.0  # long enough that a dead letter falls into it
JSON = "application/x-amz-json-1.0"


def _error(code: str, status: int = 400, of_ten: int = 10) -> dict[str, Any]:
    return {"code": code, "status": status, "of_ten": of_ten}


def _reply(body: str, content_type: str = "text/html", **options: Any) -> dict[str, Any]:
    return {"kind": "reply", "status": 200, "body": body, "content_type": content_type, "of_ten": 5, **options}


# name -> operation and the proxy's fault
FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "throttled reads": ("GetRecords", _error("ProvisionedThroughputExceededException", of_ten=9)),
    "throttled everywhere": ("*", _error("ThrottlingException", of_ten=8)),
    "500 everywhere": ("*", _error("InternalServerError", 500, 7)),
    "503 for reads": ("GetRecords", _error("ServiceUnavailable", 503)),
    "silence for reads": ("GetRecords", {"kind": "delay", "seconds": 30.0}),
    "silence of the lease table": ("UpdateItem", {"kind": "delay", "seconds": 30.0}),
    "silence everywhere": ("*", {"kind": "delay", "seconds": 30.0, "of_ten": 5}),
    "requests cut": ("*", {"kind": "lose_request", "of_ten": 5}),
    "answers cut": ("*", {"kind": "lose_response", "of_ten": 5}),
    "half bodies": ("*", {"kind": "truncate", "honest_length": False, "of_ten": 5}),
    "short bodies": ("*", {"kind": "truncate", "of_ten": 5}),
    "a login page": ("*", _reply("<html>Please sign in</html>")),
    "empty objects": ("*", _reply("{}", JSON)),
    "pages without records": ("GetRecords", _reply('{"Records":[]}', JSON)),
    "applied, then a login page": ("UpdateItem", _reply("<html>Please sign in</html>", applied=True)),
    "a page with 404": ("*", _reply("<html>Not found</html>", status=404)),
    "access denied": ("*", _error("AccessDeniedException")),
    "access to the lease table denied": ("UpdateItem", _error("AccessDeniedException")),
    "expired credentials": ("*", _error("ExpiredTokenException")),
    "letters refused": ("SendMessage", _error("InternalServerError", 500)),
    "answers to letters cut": ("SendMessage", {"kind": "lose_response"}),
    "no listing": ("DescribeStream", _error("InternalServerError", 500)),
}
TURNS = (*FAULTS, "expired iterators", "empty pages", "trim", "roll-over")


class Upstream:
    """The table's stream as the server has it, trimmed by nobody."""

    def __init__(self, aws: Aws, table: str) -> None:
        self._client = client("dynamodbstreams", aws.endpoint)
        self.arn: str = aws.dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"]
        shards = self._client.describe_stream(StreamArn=self.arn)["StreamDescription"]["Shards"]
        self._shard: str = shards[0]["ShardId"]

    def records(self, after: str = "") -> Iterator[tuple[str, Record]]:
        """Sequence number and record of all that follow, up to now."""
        start = {"ShardIteratorType": "TRIM_HORIZON"}
        if after:
            start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        answer = self._client.get_shard_iterator(StreamArn=self.arn, ShardId=self._shard, **start)
        iterator = answer["ShardIterator"]
        while (page := self._client.get_records(ShardIterator=iterator))["Records"]:
            for record in page["Records"]:
                change = record["dynamodb"]
                key, version = change["Keys"]["pk"]["S"], int(change["NewImage"]["version"]["N"])
                yield change["SequenceNumber"], (key, version)
            iterator = page["NextShardIterator"]


class Writer:
    """Writes ``rate`` records a second, every key in turn, so that the count says what must come out."""

    def __init__(self, aws: Aws, table: str, rate: float) -> None:
        self.count = 0
        self.asked: Counter[str] = Counter()
        self.poison: set[Record] = set()
        self._dynamodb, self._table, self._rate = aws.dynamodb, table, rate

    def expected(self) -> set[Record]:
        """All that was written."""
        return {self._record(number) for number in range(self.count)}

    def run(self, over: threading.Event) -> None:
        """Until ``over``."""
        started, next_ask = time.monotonic(), time.monotonic() + ASK_EVERY
        while not over.wait(0.2):
            now = time.monotonic()
            ask = ""
            if now >= next_ask:
                ask, next_ask = ASKS[self.asked.total() % len(ASKS)], now + ASK_EVERY
                self.asked[ask] += 1
            for _ in range(int((now - started) * self._rate) - self.count):
                self._put(ask)
                ask = ""

    def _put(self, ask: str) -> None:
        key, version = self._record(self.count)
        item = {"pk": {"S": key}, "version": {"N": str(version)}, "text": {"S": "x" * 100}}
        if ask:
            item |= {"ask": {"S": ask}, "until": {"N": f"{time.time() + ASK_FOR:.3f}"}}
        if ask == "poison":
            self.poison.add((key, version))
        self._dynamodb.put_item(TableName=self._table, Item=item)
        self.count += 1

    @staticmethod
    def _record(number: int) -> Record:
        return KEYS[number % len(KEYS)], number // len(KEYS) + 1


@dataclass(frozen=True)
class Trim:
    """What the proxy dropped."""

    shard_id: str
    upto: int


class Weather:
    """One kind of fault after the other, each for some seconds, with a calm after it."""

    def __init__(self, proxy: ProxyThread, upstream: Upstream, seconds: float) -> None:
        self.turns: Counter[str] = Counter()
        self.trims: list[Trim] = []
        self.now = "calm"
        self._proxy, self._upstream = proxy, upstream
        self._period = min(PERIOD, 0.9 * seconds / len(TURNS))  # a short run sees them all, too
        self._newest = ""

    def run(self, over: threading.Event) -> None:
        """Until ``over``; calm when it returns."""
        number = 0
        while not over.is_set():
            began = time.monotonic()
            self.now = TURNS[number % len(TURNS)]
            number += 1
            try:
                self._take(self.now, over)
            finally:
                self._proxy.call("clear_faults")
            self.turns[self.now] += 1
            self.now = "calm"
            over.wait(max(0.0, began + self._period - time.monotonic()))

    def _take(self, turn: str, over: threading.Event) -> None:
        if turn in FAULTS:
            operation, options = FAULTS[turn]
            self._proxy.call("fault", operation, times=1_000_000, **options)
            spell = LETTER_SPELL if operation == "SendMessage" else SPELL
            over.wait(min(spell, 0.9 * self._period if spell > SPELL else 0.6 * self._period))
        elif turn == "expired iterators":
            self._proxy.call("expire_iterators")
        elif turn == "empty pages":
            for shard_id in self._open_shards():
                self._proxy.call("empty_pages", shard_id, 5)
        elif turn == "trim":
            self._trim(over)
        else:
            shards = self._open_shards()
            self._proxy.call("roll", shards[self.turns[turn] % len(shards)])

    def _open_shards(self) -> list[str]:
        return [str(shard["shard_id"]) for shard in self._proxy.call("shards", self._upstream.arn) if shard["open"]]

    def _trim(self, over: threading.Event) -> None:
        """Drop what one shard holds while nobody can read it."""
        self._proxy.call("fault", "GetRecords", times=1_000_000, **_error("InternalServerError", 500))
        over.wait(min(SPELL, 0.6 * self._period))
        for number, _ in self._upstream.records(self._newest):
            self._newest = number
        shards = self._open_shards()
        shard_id = shards[len(self.trims) % len(shards)]
        self.trims.append(Trim(shard_id, int(self._newest)))
        self._proxy.call("trim", shard_id, self._newest)
