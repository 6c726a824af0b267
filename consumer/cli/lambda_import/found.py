"""What a file holds, whatever its format: event source mappings, their functions, and notes about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from consumer.domain.errors import StreamConsumerError

DYNAMODB: Final = "DynamoDB"
KINESIS: Final = "Kinesis"
READABLE: Final = (DYNAMODB, KINESIS)
"""The kinds of source that this product reads."""


class NotAMapping(StreamConsumerError):
    """The document is malformed, or does not hold the event source mapping that is asked for."""

    exit_code = 78


@dataclass(frozen=True, slots=True)
class Note:
    """Something that does not carry over by itself: the option of the mapping, and why or what to do."""

    option: str
    reason: str

    def __str__(self) -> str:
        return f"{self.option}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Function:
    """What the file says about the function behind a mapping.

    Attributes:
        name: its name inside of the file; the last resort for the name of the application.
        properties: as CloudFormation names them, whatever the format.
        default_timeout: seconds that its tool gives a function without one.
    """

    name: str
    properties: Mapping[Any, Any]
    default_timeout: int = 3


@dataclass(frozen=True, slots=True)
class Found:
    """One mapping.

    Attributes:
        name: chooses it among several, and is shown.
        properties: the options as the API of Lambda names them, whatever the format; what only a deployment knows is
            `Unresolved`.
        source: what it reads, such as ``DynamoDB`` or ``SQS``.
        function: what the file says about its function; None when it says nothing.
        label: tells it from other mappings of the same function.
        also: other names that choose it when they belong to it alone.
        notes: what its format adds to the notes on its options.
    """

    name: str
    properties: Mapping[Any, Any]
    source: str = DYNAMODB
    function: Function | None = None
    label: str = ""
    also: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class Contents:
    """All mappings of a file, and what in it could hold more but cannot be looked at."""

    mappings: list[Found] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def as_mapping(value: Any) -> Mapping[Any, Any]:
    """The value when it is a mapping; an empty one in place of anything else."""
    return value if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The value when it is a list; an empty one in place of anything else."""
    return value if isinstance(value, list) else []
