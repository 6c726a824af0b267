"""Which Kinesis stream has a name, or an ARN, at present: one that was deleted may have been made anew under it, and
its shards have the same ids. What DescribeStreamSummary says is asked for seldom, and shared by all shards."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from consumer.aws.answers import Flaw
from consumer.aws.errors import StrangeAnswer
from consumer.aws.kinesis_calls import KinesisCalls
from consumer.domain.errors import StreamConsumerError
from consumer.domain.shards import DAY

SAME_STREAM_FOR: Final = 5.0  # seconds; to delete a stream and make it anew takes longer


class KinesisName:
    """``stream_id`` is that of the stream that had the name last (empty: not asked yet), ``retention`` its retention in
    seconds.

    Args:
        calls: by the name.
        monotonic: seconds that never go back, and count while the machine is suspended; None: the loop's.
        made_anew: is called when another stream has the name than before.
    """

    def __init__(
        self, calls: KinesisCalls, monotonic: Callable[[], float] | None, made_anew: Callable[[], None]
    ) -> None:
        self._calls = calls
        self._made_anew = made_anew
        self.monotonic = _loop_time if monotonic is None else monotonic
        self.stream_id = ""
        self.retention = DAY
        self._asked_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure: StreamConsumerError | None = None
        self._asking = asyncio.Lock()

    async def lately(self, after: float | None = None) -> str:
        """The id of the stream that has the name, asked for at most ``SAME_STREAM_FOR`` seconds ago, or ``after`` a
        monotonic time. An account has twenty such calls a second, and a worker may have a thousand shards that want to
        know at once: those that ask at about the same time share the answer, or its failure."""
        since = self.monotonic()
        async with self._asking:
            if self._asked_at >= (since - SAME_STREAM_FOR if after is None else after):
                return self.stream_id
            if self._failure is not None and self._failed_at >= since:
                raise self._failure
            try:
                await self.ask()
            except StreamConsumerError as error:
                self._failure, self._failed_at = error, self.monotonic()
                raise
            return self.stream_id

    async def ask(self) -> dict[str, Any]:
        """DescribeStreamSummary, as it was answered."""
        asked_at = self.monotonic()
        answer = await self._calls.summary()
        summary = answer["StreamDescriptionSummary"]
        stream_id = _stream_id(summary)
        if self.stream_id not in ("", stream_id):
            self._made_anew()
        self._asked_at, self.stream_id, self._failure = asked_at, stream_id, None
        hours = summary.get("RetentionPeriodHours")
        if isinstance(hours, int) and hours > 0:
            self.retention = hours * 3600.0
        return answer


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _stream_id(summary: Mapping[str, Any]) -> str:
    """The ARN of a stream is given to the next one of its name: the second of its creation tells them apart."""
    arn, created = summary.get("StreamARN"), summary.get("StreamCreationTimestamp")
    seconds = created.timestamp() if isinstance(created, dt.datetime) else created
    if not isinstance(arn, str) or not arn or not isinstance(seconds, int | float):
        raise StrangeAnswer("DescribeStreamSummary", Flaw("Malformed", "names no ARN or no StreamCreationTimestamp"))
    return f"{arn}@{int(seconds)}"
