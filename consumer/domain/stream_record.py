"""What every record of a change stream has, whatever the source and whatever is in it."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

import msgspec

encode = msgspec.json.Encoder().encode


class StreamRecord(msgspec.Struct, gc=False):
    """One record, in the order of its shard. ``Record`` is a change of an item, ``KinesisRecord`` anything else."""

    @property
    @abstractmethod
    def number(self) -> str:
        """Its place in the shard, as digits: what the books and checkpoints hold (compare as ``int``)."""

    @property
    @abstractmethod
    def sequence_number(self) -> str:
        """What the handler sees, and names when the record failed (``itemIdentifier``)."""

    @property
    @abstractmethod
    def created(self) -> float:
        """When the record came to be, in Unix seconds; 0 when unknown."""

    @property
    @abstractmethod
    def event_id(self) -> str:
        """What names the record for its service."""

    @property
    @abstractmethod
    def event_name(self) -> str:
        """What has happened: INSERT, MODIFY, REMOVE, or that it is a record."""

    @property
    @abstractmethod
    def event_source_arn(self) -> str:
        """The stream that it was read from."""

    @property
    @abstractmethod
    def wire_size(self) -> int:
        """About the bytes that it takes by itself."""

    @property
    @abstractmethod
    def event_size(self) -> int:
        """No less than the bytes of its JSON in a Lambda event with a comma, without building it: the 6 MB of a batch
        are counted in it."""

    @abstractmethod
    def in_event(self) -> msgspec.Struct:
        """As Lambda's event has it, ready to be encoded."""

    @abstractmethod
    def detach(self) -> int:
        """Copy it out of its page (a slice keeps the whole page in memory); returns bytes held now."""

    @abstractmethod
    def forget(self) -> None:
        """Drop decoded values, so that the next attempt does not see what a handler did to them."""

    def as_event(self) -> dict[str, Any]:
        """The record exactly as Lambda's event carries it."""
        event: dict[str, Any] = json.loads(encode(self.in_event()))
        return event
