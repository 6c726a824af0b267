"""The user code of the rows. The same functions run under the daemon and under the hand-written loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

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


class Paid(msgspec.Struct):
    """Two of the ten attributes of an order."""

    version: int
    paid: bool


class Line(msgspec.Struct):
    sku: str
    count: int
    price: Decimal


class Address(msgspec.Struct):
    street: str
    number: int
    note: str


class Order(msgspec.Struct):
    """The whole order of ``benchmarks.records``, as its shop would write it."""

    pk: str
    version: int
    paid: bool
    coupon: str | None
    tags: set[str]
    rates: set[int]
    digest: bytes
    marks: set[bytes]
    lines: list[Line]
    address: Address


async def two_fields(records: Sequence[Record], context: Any) -> None:
    """Two attributes of the new image, typed."""
    for record in records:
        _ = record.decode(Paid)


async def both_images_typed(records: Sequence[Record], context: Any) -> None:
    """Both images as an order's own type."""
    for record in records:
        _ = record.decode(Order), record.decode(Order, image="old")


STAMPS = "BENCH_STAMPS"  # environment: the file that gets the time of calls


async def stamp(records: Sequence[Record], context: Any) -> None:
    """Writes down when it was called."""
    with Path(os.environ[STAMPS]).open("a") as file:  # noqa: ASYNC230 - a line, in the page cache
        file.write(f"{time.monotonic()!r}\n")


async def journal(records: Sequence[Record], context: Any) -> None:
    """Writes down what it was called with: a line for each record."""
    lines = "".join(f"{context.shard_id} {record.sequence_number}\n" for record in records)
    with Path(os.environ[STAMPS]).open("a") as file:  # noqa: ASYNC230 - a few lines, in the page cache
        file.write(lines)


async def stamp_first(records: Sequence[Record], context: Any) -> None:
    """Writes down when it was called first."""
    if not _stamped:
        _stamped.append(True)
        await stamp(records, context)


async def stall(records: Sequence[Record], context: Any) -> None:
    """Never ends by itself."""
    await asyncio.Event().wait()


_stamped: list[bool] = []
