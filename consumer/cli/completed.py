"""Runs what a verb does on an event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def completed(work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run``: its import takes longer than all else that ``--help`` needs."""
    import asyncio

    return asyncio.run(work)
