"""The rows of tumbling windows: a shard's open window and its state, in parts because an item holds 400 KB.

They live in a partition of their own, so that the listing of the leases stays small, and are written in one
transaction with the lease row: state and frontier belong together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from consumer.aws.table_rows import AttributeMap, Item, key
from consumer.domain.windows import MAX_STATE, TimeWindow, WindowState

PARTITION: Final = "windows"
PART_BYTES: Final = 300 * 1024
MAX_PARTS: Final = -(-MAX_STATE // PART_BYTES)


def part_key(pk: str, shard_id: str, part: int) -> AttributeMap:
    return key(pk, f"{shard_id}#{part}")


def writes(pk: str, shard_id: str, durable: WindowState) -> list[dict[str, dict[str, Any]]]:
    """The parts of a transaction that store ``durable`` (without the table name); a closed window leaves no rows."""
    if durable.window is None:
        return [{"Delete": {"Key": part_key(pk, shard_id, part)}} for part in range(MAX_PARTS)]
    state = durable.state
    parts = [state[start : start + PART_BYTES] for start in range(0, len(state), PART_BYTES)] or [b""]
    head = {
        "start": {"N": str(durable.window.start)},
        "end": {"N": str(durable.window.end)},
        "parts": {"N": str(len(parts))},
    }
    return [
        {"Put": {"Item": part_key(pk, shard_id, number) | {"state": {"B": text}} | (head if number == 0 else {})}}
        for number, text in enumerate(parts)
    ]


def window_state(found: Iterable[Item]) -> WindowState:
    """The window in the rows of one shard. ValueError when they do not belong together: a state is never guessed."""
    rows = {int(str(item["sk"]["S"]).rpartition("#")[2]): item for item in found}
    if 0 not in rows:
        return WindowState()
    try:
        head = rows[0]
        window = TimeWindow(int(head["start"]["N"]), int(head["end"]["N"]))
        state = b"".join(bytes(rows[number]["state"]["B"]) for number in range(int(head["parts"]["N"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the stored window cannot be read: {error!r}") from error
    return WindowState(window, state)
