"""What SQS and SNS messages have in common: string attributes, and a size that counts them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from consumer.domain.errors import PayloadTooLarge

MAX_ATTRIBUTES: Final = 10

MessageAttributes = dict[str, dict[str, str]]

# The characters that SQS takes (SendMessage, "#x9 | #xA | #xD | #x20 to #xD7FF | ...").
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def message_attributes(attributes: Mapping[str, str]) -> MessageAttributes:
    """As both services want them: typed, not empty, without the control characters they refuse a message for."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise ValueError(f"a message takes {MAX_ATTRIBUTES} attributes, not {len(attributes)}")
    return {
        name: {"DataType": "String", "StringValue": _FORBIDDEN.sub("?", value)}
        for name, value in attributes.items()
        if value
    }


def check_size(destination: str, document: bytes, attributes: MessageAttributes, limit: int) -> None:
    """PayloadTooLarge when body and attributes (names, types and values) are more than ``limit`` bytes."""
    size = len(document) + sum(
        len(name) + len(value["DataType"]) + len(value["StringValue"].encode()) for name, value in attributes.items()
    )
    if size > limit:
        raise PayloadTooLarge(destination, size, limit)
