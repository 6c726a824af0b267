"""How many letters wait at the destination: asked about once a minute, and unknown when nobody says it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

from structlog.testing import capture_logs

from consumer.domain.errors import DependencyError, PermissionDenied, StreamConsumerError
from consumer.operate.metrics import Metrics
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from consumer.testing.virtual_loop import Process
from consumer.worker.clock import SystemRandomness
from consumer.worker.letter_backlog import PERIOD, watch_backlog
from tests.support.virtual_time import in_virtual_time

SERIES = "stream_consumer_dead_letter_backlog"
UNANSWERED = DependencyError("GetQueueAttributes", "Timeout")
DENIED = PermissionDenied("sqs:GetQueueAttributes", "arn:aws:sqs:eu-west-1:123456789012:dead", "no")


class Queue(MemoryDeadLetters):
    """Answers what it is told to, and notes when it was asked."""

    def __init__(self, clock: Process, answer: int | StreamConsumerError | None) -> None:
        super().__init__("arn:aws:sqs:eu-west-1:123456789012:dead")
        self.answer = answer
        self.asked: list[float] = []
        self._clock = clock

    async def backlog(self) -> int | None:  # type: ignore[override] - as other destinations, it may not know
        self.asked.append(self._clock.monotonic())
        if isinstance(self.answer, StreamConsumerError):
            raise self.answer
        return self.answer


def watched(
    answer: int | StreamConsumerError | None, scenario: Callable[[Queue, Callable[[], float | None]], Awaitable[None]]
) -> None:
    """Run ``scenario`` beside the watch; it gets the queue, and what is exposed (None: no series)."""

    async def work(clock: Process) -> None:
        metrics, queue = Metrics(), Queue(clock, answer)

        def shown() -> float | None:
            found = [line for line in metrics.render()[0].decode().splitlines() if line.startswith(SERIES)]
            return float(found[0].split()[1]) if found else None

        watch = asyncio.create_task(watch_backlog(queue, metrics.dead_letter_backlog, SystemRandomness()))
        await asyncio.sleep(0.1)
        await scenario(queue, shown)
        watch.cancel()
        await asyncio.wait((watch,))
        assert watch.cancelled()

    in_virtual_time(work)


def test_it_is_known_from_the_start_and_followed() -> None:
    async def scenario(queue: Queue, shown: Callable[[], float | None]) -> None:
        assert shown() == 3
        queue.answer = 0
        await asyncio.sleep(2 * PERIOD)
        assert shown() == 0, "a 0 that was counted is shown"

    watched(3, scenario)


def test_it_is_asked_about_once_a_minute_and_never_in_step() -> None:
    async def scenario(queue: Queue, _: object) -> None:
        await asyncio.sleep(100 * PERIOD)
        pauses = [later - earlier for earlier, later in pairwise(queue.asked)]
        assert PERIOD / 2 <= min(pauses) < max(pauses) <= PERIOD * 1.5
        assert 85 < len(pauses) < 115

    watched(0, scenario)


def test_without_an_answer_it_is_unknown_and_logged_once_for_each_reason() -> None:
    async def scenario(queue: Queue, shown: Callable[[], float | None]) -> None:
        with capture_logs() as logs:
            for answer in (DENIED, DENIED, UNANSWERED, 4, UNANSWERED):
                queue.answer = answer
                await asyncio.sleep(2 * PERIOD)
                assert shown() == (4 if answer == 4 else None)
        events = [(one["log_level"], one["event"], one["destination"]) for one in logs]
        assert events == [("warning", "dead_letter.backlog_unknown", queue.destination)] * 3
        assert ["sqs:GetQueueAttributes" in one["error"] for one in logs] == [True, False, False]

    watched(5, scenario)


def test_where_nobody_counts_there_is_no_series_and_no_word() -> None:
    async def scenario(_: object, shown: Callable[[], float | None]) -> None:
        with capture_logs() as logs:
            await asyncio.sleep(10 * PERIOD)
        assert (shown(), logs) == (None, [])

    watched(None, scenario)
