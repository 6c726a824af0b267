"""User code."""

from __future__ import annotations

from typing import Protocol

from consumer.domain.outcome import HandlerCall, Outcome


class Reservation(Protocol):
    """All that one call needs to start at once: a worker process that has imported the target, or nothing at all."""

    async def run(self, call: HandlerCall) -> Outcome:
        """Run one batch, once. User code is handed the call before anything is awaited, so that what was checked right
        before still holds; where it starts only later, ``call.may_start_for`` is asked there. Never raises for what
        user code did: that is an Outcome. Must have really ended (or been killed) when it returns. Cancelling it
        kills or cancels the user code and waits for its end."""

    def release(self) -> None:
        """Give back what was reserved, used or not. Idempotent."""


class Handler(Protocol):
    """User code, however it is run. One instance serves the whole process."""

    @property
    def width(self) -> int:
        """How many calls can usefully run at the same time; 0 = no limit, and nothing to wait for."""

    async def start(self) -> None:
        """Import the target. HandlerImportError."""

    async def reserve(self) -> Reservation:
        """Wait until a call can start at once. When none ever can, the call of the reservation ends as
        ``not_invoked``. Cancelling the wait leaves nothing reserved."""

    async def close(self) -> None:
        """End worker processes. Idempotent."""
