"""User code."""

from __future__ import annotations

from typing import Protocol

from consumer.domain.outcome import HandlerCall, Outcome


class Handler(Protocol):
    """User code, however it is run. One instance serves the whole process."""

    @property
    def width(self) -> int:
        """How many calls can usefully run at the same time; 0 = no limit."""

    async def start(self) -> None:
        """Import the target. HandlerImportError."""

    async def invoke(self, call: HandlerCall) -> Outcome:
        """Run one batch. Never raises for what user code did: that is an Outcome. Must have really ended
        (or been killed) when it returns. Cancelling it kills or cancels the user code and waits for its end."""

    async def close(self) -> None:
        """End worker processes. Idempotent."""
