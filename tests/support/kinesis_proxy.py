"""A fault proxy in front of a local Kinesis server: what AWS does to a reader and those servers do not.

Everything passes through, and streams are those of the server. Shard iterators are the proxy's own, around those of the
server, so that they can expire. Tests trim, vanish and expire through methods, and queue faults as on any proxy:

    async with KinesisProxy(kinesalite.endpoint) as proxy:     # in the test's own loop
    with KinesisProxyThread(kinesalite.endpoint) as proxy:     # in a thread, for daemons in other processes
        proxy.call("trim", "stream", "shardId-000000000000", upto="4959...", mode="empty")

The three modes of trimming are answers that AWS was seen to give to the number of a record that is gone: reading goes
on with what is left (``horizon``), pages are empty for ever (``empty``), or the number is invalid (``refused``).
"""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.support.fault_proxy import Answer, FaultProxy, InThread
from tests.support.proxy_faults import Refusal

KINESIS: Final = "Kinesis_20131202."
Mode = Literal["horizon", "empty", "refused"]

READS_A_SECOND: Final = 5  # of a shard, by all readers; also iterators a second
BYTES_A_SECOND: Final = 2_000_000
SUMMARIES_A_SECOND: Final = 20  # of an account
ITERATOR_LIFE: Final = 300.0  # seconds


@dataclass
class Trimmed:
    """The records of a shard up to this number are gone, unless ``kept``. ``behind`` are the milliseconds that a place
    which stays empty is behind."""

    upto: int
    mode: Mode
    kept: bool
    behind: int


@dataclass
class Quota:
    """What was taken of a shard, or an account, in the last second."""

    taken: deque[float] = field(default_factory=deque)
    busy_until: float = 0.0  # until the bytes that were read are paid for

    def take(self, most: int) -> bool:
        now = time.monotonic()
        while self.taken and self.taken[0] <= now - 1.0:
            self.taken.popleft()
        if len(self.taken) >= most or now < self.busy_until:
            return False
        self.taken.append(now)
        return True


class KinesisProxy(FaultProxy):
    """The proxy, running on 127.0.0.1 in the loop that entered it. Its methods take effect at once.

    Attributes that tests may set:
        throttles: whether the quotas of a shard and of the account hold.
        iterator_life: seconds until an iterator has expired.
        most_listed: shards on a page of ListShards; None for what the server says.
        retention_hours: what DescribeStreamSummary says instead of the server, by stream.
    """

    ADMIN = (*FaultProxy.ADMIN, "trim", "vanish", "expire_iterators", "end_without_children", "without_records")

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.throttles = False
        self.iterator_life = ITERATOR_LIFE
        self.most_listed: int | None = None
        self.retention_hours: dict[str, int] = {}
        self.throttled: dict[str, int] = defaultdict(int)
        self._generation = 0
        self._trimmed: dict[tuple[str, str], Trimmed] = {}
        self._gone: set[tuple[str, str]] = set()
        self._endless: dict[tuple[str, str], int] = {}
        self._without_records = 0
        self._quotas: defaultdict[tuple[str, ...], Quota] = defaultdict(Quota)

    # --- what tests do -------------------------------------------------------------------------------------------

    async def trim(self, stream: str, shard_id: str, upto: str, mode: Mode = "horizon", *, kept: bool = False) -> None:
        """Drop the records of a shard up to and including this SequenceNumber; ``kept``: only their numbers are
        answered as if they were gone."""
        hours = self.retention_hours.get(stream, 24)
        self._trimmed[stream, shard_id] = Trimmed(int(upto), mode, kept, 3_600_000 * hours)

    async def vanish(self, stream: str, shard_id: str) -> None:
        """The shard has expired: it is not listed, and nothing of it can be read."""
        self._gone.add((stream, shard_id))

    async def expire_iterators(self) -> None:
        """Every iterator handed out so far is expired."""
        self._generation += 1

    async def end_without_children(self, stream: str, shard_id: str, times: int = 1) -> None:
        """The next answers of this shard lack NextShardIterator and ChildShards, although it may be open."""
        self._endless[stream, shard_id] = times

    async def without_records(self, times: int = 1) -> None:
        """The next pages have no ``Records``."""
        self._without_records = times

    # --- what it answers -----------------------------------------------------------------------------------------

    def _own(self) -> Mapping[str, Answer]:
        return {
            KINESIS + "DescribeStreamSummary": self._describe_stream_summary,
            KINESIS + "ListShards": self._list_shards,
            KINESIS + "GetShardIterator": self._get_shard_iterator,
            KINESIS + "GetRecords": self._get_records,
        }

    async def _describe_stream_summary(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        self._take("DescribeStreamSummary", (), SUMMARIES_A_SECOND, "LimitExceededException")
        answer = await self._real(headers, KINESIS + "DescribeStreamSummary", parameters)
        summary = answer["StreamDescriptionSummary"]
        hours = self.retention_hours.get(_stream_of(parameters))
        return {"StreamDescriptionSummary": {**summary, **({} if hours is None else {"RetentionPeriodHours": hours})}}

    async def _list_shards(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        asked = dict(parameters)
        most = min(asked.pop("MaxResults", 1000), self.most_listed or 1000)
        begin = 0
        if "NextToken" in asked:
            begin, which = json.loads(base64.b64decode(asked.pop("NextToken")))
            asked |= which
        which = {name: asked[name] for name in ("StreamName", "StreamARN") if name in asked}
        shards: list[dict[str, Any]] = []
        page: dict[str, Any] = await self._real(headers, KINESIS + "ListShards", asked)
        while True:
            shards += page["Shards"]
            if not page.get("NextToken"):
                break
            page = await self._real(headers, KINESIS + "ListShards", {"NextToken": page["NextToken"]})
        listed = [shard for shard in shards if (_stream_of(which), shard["ShardId"]) not in self._gone]
        answer: dict[str, Any] = {"Shards": listed[begin : begin + most]}
        if len(listed) > begin + most:
            answer["NextToken"] = base64.b64encode(json.dumps([begin + most, which]).encode()).decode()
        return answer

    async def _get_shard_iterator(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        stream, shard_id, kind = _stream_of(parameters), parameters["ShardId"], parameters["ShardIteratorType"]
        self._check_visible(stream, shard_id)
        self._take("GetShardIterator", (stream, shard_id), READS_A_SECOND, "ProvisionedThroughputExceededException")
        trimmed, asked = self._trimmed.get((stream, shard_id)), dict(parameters)
        stuck = False
        if trimmed is not None and kind == "TRIM_HORIZON" and not trimmed.kept:
            asked |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(trimmed.upto)}
        elif trimmed is not None and int(parameters.get("StartingSequenceNumber", trimmed.upto + 1)) <= trimmed.upto:
            if trimmed.mode == "refused":
                number = parameters["StartingSequenceNumber"]
                where = f"used in GetShardIterator on shard {shard_id} in stream {stream} under account 000000000000"
                raise Refusal("InvalidArgumentException", f"StartingSequenceNumber {number} {where} is invalid.")
            stuck = trimmed.mode == "empty"
            asked |= {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(trimmed.upto)}
        if kind == "AT_TIMESTAMP":
            asked = await self._at_time(headers, parameters)
        real = (await self._real(headers, KINESIS + "GetShardIterator", asked))["ShardIterator"]
        return {"ShardIterator": self._token(stream, shard_id, real, stuck=stuck)}

    async def _at_time(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        """The request for the first record that arrived then or later. One of the servers does not answer when there is
        none, so it is looked for here. A time to come is refused by both."""
        if parameters["Timestamp"] > time.time():
            return parameters
        which = {name: parameters[name] for name in ("StreamName", "StreamARN", "ShardId") if name in parameters}
        ask = KINESIS + "GetShardIterator"
        iterator: str | None = (await self._real(headers, ask, {**which, "ShardIteratorType": "TRIM_HORIZON"}))[
            "ShardIterator"
        ]
        last: str | None = None
        while iterator is not None:
            page = await self._real(headers, KINESIS + "GetRecords", {"ShardIterator": iterator})
            for record in page["Records"]:
                number = record["SequenceNumber"]
                if record["ApproximateArrivalTimestamp"] >= parameters["Timestamp"]:
                    return {**which, "ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": number}
                last = number
            iterator = page.get("NextShardIterator") if page["Records"] else None
        if last is None:
            return {**which, "ShardIteratorType": "TRIM_HORIZON"}
        return {**which, "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}

    async def _get_records(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            cursor = json.loads(base64.b64decode(parameters["ShardIterator"]))
            generation, made, stream, shard_id, real, stuck = cursor
        except ValueError as error:
            raise Refusal("InvalidArgumentException", "Invalid ShardIterator.") from error
        place = (stream, shard_id)
        self._check_visible(stream, shard_id)
        if generation != self._generation or time.monotonic() - made > self.iterator_life:
            raise Refusal("ExpiredIteratorException", "Iterator expired.")
        self._take("GetRecords", place, READS_A_SECOND, "ProvisionedThroughputExceededException")
        trimmed = self._trimmed.get(place)
        if stuck and trimmed is not None:
            again = self._token(*place, real, stuck=True)
            return {"Records": [], "NextShardIterator": again, "MillisBehindLatest": trimmed.behind}
        answer = await self._real(headers, KINESIS + "GetRecords", {**parameters, "ShardIterator": real})
        self._quotas["GetRecords", *place].busy_until = time.monotonic() + len(json.dumps(answer)) / BYTES_A_SECOND
        if trimmed is not None and not trimmed.kept:
            answer["Records"] = [one for one in answer["Records"] if int(one["SequenceNumber"]) > trimmed.upto]
        following = answer.get("NextShardIterator")
        if following is not None:
            answer["NextShardIterator"] = self._token(*place, following)
        if self._endless.get(place):
            self._endless[place] -= 1
            answer |= {"NextShardIterator": None}
            answer.pop("ChildShards", None)
        if self._without_records:
            self._without_records -= 1
            del answer["Records"]
        return answer

    # --- inside --------------------------------------------------------------------------------------------------

    def _token(self, stream: str, shard_id: str, real: str, *, stuck: bool = False) -> str:
        cursor = [self._generation, time.monotonic(), stream, shard_id, real, stuck]
        return base64.b64encode(json.dumps(cursor).encode()).decode()

    def _take(self, operation: str, place: tuple[str, ...], most: int, code: str) -> None:
        if self.throttles and not self._quotas[operation, *place].take(most):
            self.throttled[operation] += 1
            raise Refusal(code, f"Rate exceeded for {' '.join(place) or 'account 000000000000'}.")

    def _check_visible(self, stream: str, shard_id: str) -> None:
        if (stream, shard_id) in self._gone:
            missing = f"Shard {shard_id} in stream {stream} under account 000000000000 does not exist"
            raise Refusal("ResourceNotFoundException", missing)


def _stream_of(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("StreamName") or str(parameters["StreamARN"]).rpartition("/")[2])


class KinesisProxyThread(InThread[KinesisProxy]):
    """The proxy in a thread with a loop of its own, as a context manager: for tests that drive other processes.

    ``call("trim", ...)`` runs a method of the proxy there; ``proxy`` is the proxy, whose attributes may be set.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(lambda: KinesisProxy(upstream))
