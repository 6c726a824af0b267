"""The user code of the rows. The same functions run under the daemon and under the hand-written loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lambda_function import on_lambda as on_lambda
from consumer.domain.record import Record


async def nothing(records: Sequence[Record], context: Any) -> None:
    """Touches nothing."""


async def keys(records: Sequence[Record], context: Any) -> None:
    for record in records:
        _ = record.keys["pk"]


async def both_images(records: Sequence[Record], context: Any) -> None:
    """Both images as Python values."""
    for record in records:
        _ = record.new_image, record.old_image


STAMPS = "BENCH_STAMPS"  # environment: the file that gets the time of calls


async def stamp(records: Sequence[Record], context: Any) -> None:
    """Writes down when it was called."""
    with Path(os.environ[STAMPS]).open("a") as file:  # noqa: ASYNC230 - a line, in the page cache
        file.write(f"{time.monotonic()!r}\n")


async def stamp_first(records: Sequence[Record], context: Any) -> None:
    """Writes down when it was called first."""
    if not _stamped:
        _stamped.append(True)
        await stamp(records, context)


async def stall(records: Sequence[Record], context: Any) -> None:
    """Never ends by itself."""
    await asyncio.Event().wait()


_stamped: list[bool] = []
