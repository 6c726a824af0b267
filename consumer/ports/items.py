"""The items that change records are about, as they are now."""

from __future__ import annotations

from typing import Any, Protocol


class SourceItems(Protocol):
    """The table of the source."""

    table: str

    async def item(self, keys: dict[str, Any]) -> dict[str, Any] | None:
        """The item with this primary key, read consistently; None when there is none. Keys and item as DynamoDB's JSON
        has them, binary values as base64 text. PermissionDenied (``dynamodb:GetItem``), ResourceMissing,
        DependencyError."""
