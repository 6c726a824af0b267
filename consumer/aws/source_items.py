"""``ports.SourceItems``: single items of the source's table."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from consumer.aws.errors import ApiCaller


class TableItems:
    """Consistent reads of one table.

    Args:
        client: a dynamodb client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        table: its name or ARN.
    """

    def __init__(self, client: Any, caller: ApiCaller, table: str) -> None:
        self.table = table
        self._client = client
        self._caller = caller

    async def item(self, keys: dict[str, Any]) -> dict[str, Any] | None:
        """The item, or None. ValueError when ``keys`` are none."""
        try:
            wire = {name: _as_bytes(value) for name, value in keys.items()}
        except (AttributeError, TypeError, binascii.Error) as error:
            raise ValueError(f"no primary key: {error}") from error
        reading = self._client.get_item(TableName=self.table, Key=wire, ConsistentRead=True)
        answer = await self._caller.call("GetItem", f"table {self.table}", reading)
        found = answer.get("Item")
        return None if not found else {name: _as_text(value) for name, value in found.items()}


def _as_bytes(value: dict[str, Any]) -> dict[str, Any]:
    """Of a key: S, N or B."""
    return {kind: base64.b64decode(text, validate=True) if kind == "B" else text for kind, text in value.items()}


def _as_text(value: Any) -> Any:
    """The SDK gives binary values as bytes, at any depth."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return value
