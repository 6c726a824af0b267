"""The one way to try again: pauses, deadlines, stops, and what is never repeated."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import (
    DependencyError,
    HandlerImportError,
    HandlerImportMayPass,
    LeaseLost,
    MisconfiguredResource,
    PermissionDenied,
    ResourceMissing,
)
from consumer.testing.virtual_loop import Process
from consumer.worker.retrying import DENIED_DEADLINE, START_DEADLINE, Backoff, at_start, retrying, while_up
from tests.support.virtual_time import in_virtual_time

DOWN = DependencyError("Query", "Timeout")


class Attempts:
    """Fails with ``errors``, one after the other, then returns "done". ``at`` is when each attempt came."""

    def __init__(self, clock: Process, *errors: Exception) -> None:
        self._clock = clock
        self._errors = list(errors)
        self.at: list[float] = []
        self.failures: list[tuple[Exception, int]] = []

    async def __call__(self) -> str:
        self.at.append(self._clock.monotonic())
        if self._errors:
            raise self._errors.pop(0)
        return "done"

    def failed(self, error: Exception, attempts: int) -> None:
        self.failures.append((error, attempts))

    @property
    def pauses(self) -> list[float]:
        return [round(after - before, 6) for before, after in zip(self.at, self.at[1:], strict=False)]


def test_pauses_double_up_to_the_longest() -> None:
    async def work(clock: Process) -> None:
        attempts = Attempts(clock, *[DOWN] * 6)
        assert await retrying(attempts, Backoff(0.5, 5.0), attempts.failed) == "done"
        assert attempts.pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
        assert attempts.failures == [(DOWN, n) for n in range(1, 7)]

    in_virtual_time(work)


def test_jitter_lengthens_a_pause_by_less_than_the_first_one() -> None:
    backoff = Backoff(0.2, 30.0, lambda: 0.5)
    assert [backoff.after(n) for n in (1, 2, 3)] == pytest.approx([0.3, 0.5, 0.9])
    assert backoff.after(10_000) == 30.0


@pytest.mark.parametrize("error", [LeaseLost("s", 1, "gone"), ValueError("a bug"), asyncio.CancelledError()])
def test_what_cannot_pass_is_raised_at_once(error: BaseException) -> None:
    async def work(clock: Process) -> None:
        async def attempt() -> None:
            raise error

        with pytest.raises(type(error)):
            await retrying(attempt, Backoff(1.0, 1.0), lambda *_: pytest.fail("repeated"))

    in_virtual_time(work)


def test_what_is_raised_on_a_failure_ends_the_attempts() -> None:
    async def work(clock: Process) -> None:
        attempts = Attempts(clock, DOWN, DOWN)

        def failed(error: Exception, _: int) -> None:
            raise LeaseLost("s", 1, "fenced") from error

        with pytest.raises(LeaseLost):
            await retrying(attempts, Backoff(1.0, 1.0), failed)
        assert len(attempts.at) == 1

    in_virtual_time(work)


def test_a_stop_ends_the_pause_and_grants_one_more_attempt() -> None:
    async def work(clock: Process) -> None:
        stop, attempts = asyncio.Event(), Attempts(clock, DOWN, DOWN, DOWN)
        asyncio.get_running_loop().call_later(3.0, stop.set)
        with pytest.raises(DependencyError):
            await retrying(attempts, Backoff(2.0, 60.0), attempts.failed, stop=stop)
        assert attempts.pauses == [2.0, 1.0]

    in_virtual_time(work)


def test_at_the_start_only_what_passes_by_itself_is_waited_for() -> None:
    async def work(clock: Process) -> None:
        for passes in (DOWN, HandlerImportMayPass("no route")):
            assert await at_start(clock, "the stream", Attempts(clock, passes, passes)) == "done"
            began = clock.monotonic()
            with pytest.raises(type(passes)):
                await at_start(clock, "the stream", Attempts(clock, *[passes] * 1000))
            assert START_DEADLINE - 5.0 < clock.monotonic() - began <= START_DEADLINE + 5.0
        for error in (ResourceMissing("t"), MisconfiguredResource("t"), HandlerImportError("no module")):
            attempts = Attempts(clock, error)
            with pytest.raises(type(error)):
                await at_start(clock, "the stream", attempts)
            assert len(attempts.at) == 1

    in_virtual_time(work)


def test_at_the_start_a_refused_permission_is_asked_for_again() -> None:
    """For as long as a new one takes to spread; counted from its first refusal, however long others were waited for."""

    async def work(clock: Process) -> None:
        denied = PermissionDenied("dynamodb:Query", "t")
        assert await at_start(clock, "the stream", Attempts(clock, *[denied] * 4)) == "done"
        for before in ([], [DOWN] * 10):
            attempts = Attempts(clock, *before, *[denied] * 1000)
            with pytest.raises(PermissionDenied):
                await at_start(clock, "the stream", attempts)
            first = attempts.at[len(before)]
            assert DENIED_DEADLINE - 5.0 < clock.monotonic() - first <= DENIED_DEADLINE + 5.0

    in_virtual_time(work)


def test_a_daemon_that_was_up_waits_for_whatever_was_taken_away() -> None:
    async def work(clock: Process) -> None:
        attempts = Attempts(clock, *[PermissionDenied("dynamodb:Query", "t"), ResourceMissing("t"), DOWN] * 100)
        assert await while_up("the lease table", attempts) == "done"
        assert clock.monotonic() - attempts.at[0] > START_DEADLINE

    in_virtual_time(work)
