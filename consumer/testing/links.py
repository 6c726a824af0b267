"""The way between one worker and a service in memory, where requests and answers can be late or lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from consumer.domain.errors import DependencyError, LeaseLost, ResourceMissing, SessionFenced

T = TypeVar("T")


class Link(Protocol):
    """The network between one worker and one service. Operations are the names of the port's methods."""

    async def request(self, operation: str) -> None:
        """Before the service sees it. Raise DependencyError to lose the request."""

    async def response(self, operation: str) -> None:
        """After it was applied. Raise DependencyError to lose the response."""


class LateRequest(DependencyError):
    """Raise it from ``Link.request`` to hold a write back: its sender gets no answer, and the table sees the write only
    when ``deliver`` is called, which may be long after newer writes."""

    def __init__(self, operation: str) -> None:
        super().__init__(operation, "Timeout")
        self._apply: Callable[[], object] | None = None

    def hold(self, apply: Callable[[], object]) -> None:
        self._apply = apply

    def deliver(self) -> None:
        """Let it arrive now, once. Whether it is refused is nobody's business any more."""
        apply, self._apply = self._apply, None
        if apply is not None:
            with suppress(LeaseLost, SessionFenced, ResourceMissing):
                apply()


async def travel(link: Link, operation: str, apply: Callable[[], T]) -> T:
    """One call over ``link``. A link with a ``carry`` of its own decides by itself when ``apply`` happens: a request on
    its way does not need the process that sent it."""
    carry: Callable[[str, Callable[[], T]], Awaitable[T]] | None = getattr(link, "carry", None)
    if carry is not None:
        return await carry(operation, apply)
    await link.request(operation)
    result = apply()
    await link.response(operation)
    return result


class DirectLink:
    """A network without faults that still lets other tasks run on the way."""

    async def request(self, operation: str) -> None:
        await asyncio.sleep(0)

    async def response(self, operation: str) -> None:
        await asyncio.sleep(0)
