"""The user code of the rows. The same functions run under the daemon and under the hand-written loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def on_lambda(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A small Lambda function: looks at every record, fails none."""
    for record in event["Records"]:
        _ = record["dynamodb"]["NewImage"]["version"]["N"]
    return {"batchItemFailures": []}
