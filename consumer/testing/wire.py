"""Python values as DynamoDB attribute values, the way they look in a stream record."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def to_wire(value: Any) -> dict[str, Any]:
    """A Python value as a DynamoDB attribute value (``{"S": "a"}``). Sets must not be empty or mixed."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float | Decimal):
        return {"N": str(value)}
    if isinstance(value, bytes):
        return {"B": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"M": {str(name): to_wire(inner) for name, inner in value.items()}}
    if isinstance(value, set | frozenset):
        members = sorted((to_wire(inner) for inner in value), key=repr)
        kind = next(iter(members[0]))
        return {kind + "S": [member[kind] for member in members]}
    if isinstance(value, list | tuple):
        return {"L": [to_wire(inner) for inner in value]}
    raise TypeError(f"DynamoDB has no type for {type(value)}")
