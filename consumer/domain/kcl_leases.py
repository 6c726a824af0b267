"""The leases of a fleet of the Kinesis Client Library (KCL), as its lease table has them.

A lease says how far its shard was processed: up to and including the record of ``checkpoint`` and, inside of a record
that the KPL has aggregated, of ``sub_sequence_number``. Four words stand for what is no record: SHARD_END (processed to
its end), and TRIM_HORIZON, LATEST and AT_TIMESTAMP, where the KCL was going to begin, with nothing checkpointed yet.
(``ExtendedSequenceNumber`` and ``SentinelCheckpoint`` of the KCL; ``DynamoDBLeaseSerializer`` names the attributes.)

No clock is stored: a worker that lives adds one to ``leaseCounter`` of each of its leases three times in a failover
time. So two readings that far apart tell whether the fleet still works.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

SHARD_END: Final = "SHARD_END"
TRIM_HORIZON: Final = "TRIM_HORIZON"
UNCHECKED: Final = ("LATEST", "AT_TIMESTAMP")  # begun at a moment that is stored nowhere
SENTINELS: Final = (SHARD_END, TRIM_HORIZON, *UNCHECKED)

_MULTI_STREAM = re.compile(r"(?P<stream>(?P<account>[0-9]+):(?P<name>[^:]+):(?P<epoch>[0-9]+)):(?P<shard>[^:]+)")
_DYNAMODB = re.compile(r"arn:[^:]+:dynamodb:(?P<region>[^:]*):(?P<account>[^:]*):table/(?P<table>[^/]+)/stream/.+")
_KINESIS = re.compile(r"arn:[^:]+:kinesis:[^:]*:(?P<account>[^:]*):stream/(?P<name>[^/]+)(/.*)?")
_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True)
class KclLease:
    """One lease. ``stream`` is ``account:stream:creationEpoch`` in the table of an application that reads several
    streams, else empty. ``pending`` is a checkpoint that was prepared and never made (two-phase checkpoints)."""

    key: str
    shard_id: str
    checkpoint: str
    sub_sequence_number: int = 0
    stream: str = ""
    owner: str | None = None
    checkpoint_owner: str | None = None
    parents: tuple[str, ...] = ()
    pending: str = ""

    @property
    def begun(self) -> bool:
        """The KCL has read the shard, or has decided to leave out its beginning. It reads no shard before."""
        return self.checkpoint != TRIM_HORIZON

    @property
    def position(self) -> str:
        """The checkpoint as text, with the place inside of an aggregated record."""
        sub = self.sub_sequence_number
        return f"{self.checkpoint}, sub-sequence number {sub}" if sub else self.checkpoint


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A row that is no lease: the KCL 3 keeps its leader's lock, the metrics of workers and more in the lease table
    (single-table mode). ``worker`` writes it, if that is known."""

    key: str
    kind: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class KclReading:
    """All of a lease table. ``problems``: rows that cannot be understood, each with its key. ``contents``: every row as
    one text, by its key."""

    leases: tuple[KclLease, ...] = ()
    others: tuple[OtherRow, ...] = ()
    problems: tuple[str, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def owners(self) -> tuple[str, ...]:
        """The workers that the leases name."""
        names = [name for lease in self.leases for name in (lease.owner, lease.checkpoint_owner)]
        return tuple(sorted({name for name in names if name}))


def movement(before: KclReading, after: KclReading) -> str:
    """What shows that the fleet lives: rows that have changed, appeared or vanished between two readings, and whose
    they are. Empty when nothing has moved."""
    changed = {
        key
        for key in before.contents.keys() | after.contents.keys()
        if before.contents.get(key) != after.contents.get(key)
    }
    if not changed:
        return ""
    workers = {
        worker
        for reading in (before, after)
        for worker in (
            *(
                name
                for lease in reading.leases
                if lease.key in changed
                for name in (lease.owner, lease.checkpoint_owner)
            ),
            *(row.worker for row in reading.others if row.key in changed),
        )
        if worker
    }
    whose = f", of the workers {some(workers)}" if workers else ""
    return f"{len(changed)} of {len(before.contents.keys() | after.contents.keys())} rows have moved{whose}"


def some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    found = sorted(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


# --- whose streams -----------------------------------------------------------------------------------


def split_key(key: str) -> tuple[str, str]:
    """The stream and the shard that a lease key names; an empty stream where the table is that of one stream."""
    found = _MULTI_STREAM.fullmatch(key)
    return (found["stream"], found["shard"]) if found else ("", key)


@dataclass(frozen=True, slots=True)
class OwnLeases:
    """``foreign``: how many leases there are of each other stream."""

    leases: tuple[KclLease, ...]
    foreign: Mapping[str, int]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def leases_of(leases: Iterable[KclLease], stream_arn: str, label: str) -> OwnLeases:
    """Those of one stream, out of a table that may hold those of several.

    The key of a Kinesis stream has its creation time in seconds, which the application has given and the KCL never
    checked; ``label`` (``name@seconds``) has the real one. That of a DynamoDB stream is made by the adapter, out of its
    ARN (``KinesisMapperUtil``).
    """
    account, name, epoch = _as_in_keys(stream_arn, label)
    by_stream: dict[str, list[KclLease]] = {}
    for lease in leases:
        by_stream.setdefault(lease.stream, []).append(lease)
    alone = by_stream.pop("", [])
    named = [stream for stream in by_stream if stream.startswith(f"{account}:{name}:")]
    notes, problems = [], []
    exact = f"{account}:{name}:{epoch}"
    if epoch and exact in named:
        named = [exact]
    elif len(named) > 1:
        problems.append(
            f"the table has leases of {some(named)}: only one of them can be this stream, which was created at "
            f"{epoch or 'a time that is not known'}; delete the rows of the others"
        )
    elif epoch and named:
        notes.append(f"the KCL's keys say {named[0]}; the stream was created at {epoch}: taken for the same")
    mine = [lease for stream in named for lease in by_stream.pop(stream)]
    if mine and alone:
        problems.append(
            f"the table has leases with their stream in the key, and without ({some(lease.key for lease in alone)}), "
            "as after a change of the KCL's mode: delete the rows that its application does not use any more"
        )
    foreign = {stream: len(found) for stream, found in sorted(by_stream.items())}
    return OwnLeases((*alone, *mine), foreign, tuple(notes), tuple(problems))


def _as_in_keys(stream_arn: str, label: str) -> tuple[str, str, str]:
    """Account, name and creation time (empty when any fits) of a stream, as the KCL's keys have them."""
    if found := _DYNAMODB.fullmatch(stream_arn):
        parts = (found["region"], found["account"], found["table"], label.replace(":", "_"))
        return found["account"], "$".join(parts), ""
    if found := _KINESIS.fullmatch(stream_arn):
        return found["account"], found["name"], label.rpartition("@")[2] if "@" in label else ""
    return "", stream_arn, ""
