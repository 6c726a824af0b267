"""How the books number the records of a Kinesis stream.

A record that the KPL has aggregated holds many, which share its SequenceNumber. Each of them is settled by itself, so
the books need a number for each: that of the service, and behind it seven digits for the place inside (0 for a record
that is not aggregated). Such numbers have the order of the shard, also after a restart in the middle of an aggregate.
"""

from __future__ import annotations

from typing import Final

PLACES: Final = 7  # digits; a record of 10 MiB has room for less than two million sub-records, of six bytes at least


def book_number(sequence_number: str, sub_sequence_number: int = 0) -> str:
    """The number of a record in the books. ValueError when there is no room for the place."""
    if not 0 <= sub_sequence_number < 10**PLACES:
        raise ValueError(f"sub-sequence number {sub_sequence_number} of {sequence_number} is out of range")
    return f"{sequence_number}{sub_sequence_number:0{PLACES}}"


def service_number(number: str) -> tuple[str, int]:
    """The SequenceNumber of the service and the place inside. ValueError for what is not a number of the books."""
    if not number.isdecimal() or len(number) <= PLACES:
        raise ValueError(f"{number!r} is not the number of a Kinesis record")
    return number[:-PLACES], int(number[-PLACES:])
