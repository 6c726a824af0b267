"""Whether an image of a change is the item as it is now.

Both as DynamoDB's JSON has them, binary values as base64 text. Sets have no order, and a number may be written in
several ways; all else has to be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .keys import canonical_number


def same_item(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two items are equal. ValueError when one of them is no item; RecursionError when it is nested deeper than
    an item can be."""
    return bool(_comparable(one) == _comparable(other))


def _comparable(item: Mapping[str, Any]) -> dict[str, object]:
    return {name: _value(value) for name, value in item.items()}


def _value(value: Any) -> tuple[str, object]:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(f"an attribute value has one type, not {value!r:.64}")
    ((kind, content),) = value.items()
    try:
        match kind:
            case "M":
                return kind, _comparable(content)
            case "L":
                return kind, [_value(one) for one in content]
            case "N":
                return kind, canonical_number(content)
            case "NS":
                return kind, frozenset(canonical_number(one) for one in content)
            case "SS" | "BS":
                return kind, frozenset(content)
            case _:
                return kind, content
    except (TypeError, AttributeError) as error:
        raise ValueError(f"an attribute value of type {kind} holds {type(content).__name__}") from error
