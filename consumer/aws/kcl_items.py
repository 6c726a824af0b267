"""How the lease table of a KCL application looks, as DynamoDB items. Pure: no client, no clock.

Attributes of KCL 1.x to 3.x (``DynamoDBLeaseSerializer``, ``DynamoDBMultiStreamLeaseSerializer``): ``leaseKey``,
``leaseOwner``, ``leaseCounter``, ``checkpoint`` with ``checkpointSubSequenceNumber``, both also of a
``pendingCheckpoint``, ``parentShardId`` (a set), ``checkpointOwner``; with several streams ``streamName`` and
``shardId``, too. Since KCL 3.5 ``entityType`` tells leases from what else may be in the table (``EntityType``).

Reading never guesses: a row that is neither a lease nor known as something else is a problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from consumer.aws.item_values import (
    NotAFrontier,
    lenient_text,
    read_count,
    read_sequence_number,
    read_text,
    read_texts,
    shown,
)
from consumer.aws.table_rows import Item
from consumer.domain.kcl_leases import SENTINELS, KclLease, KclReading, OtherRow, split_key

KEY: Final = "leaseKey"
_CHECKPOINT: Final = "checkpoint"
_ENTITY: Final = "entityType"
_LEASE: Final = "LEASE"
_KINDS: Final = {
    "CLIENT_VERSION_MIGRATION": "state of the migration to KCL 3",
    "LEADER": "lock of the leader",
    "STREAM": "name of a stream",
    "TABLE_MIGRATION": "state of the migration to one table",
    "WORKER_METRIC_STATS": "metrics of a worker",
}
# What tells a row without entityType, if it has no checkpoint: attributes of the lock client, and of WorkerMetricStats.
_TOLD_BY: Final = {"recordVersionNumber": "LEADER", "lut": "WORKER_METRIC_STATS"}
_OTHER_KEYS: Final = {
    "wid": "it is the table of the KCL's worker metrics",
    "key": "it is the table of the KCL's coordinator",
    "pk": "it is a lease table of stream-consumer",
}


def kcl_table_problem(table: Mapping[str, Any]) -> str:
    """Why a described table is no lease table of the KCL; empty when it is."""
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in table.get("AttributeDefinitions", ())}
    keys = [(k["KeyType"], k["AttributeName"], types.get(k["AttributeName"])) for k in table.get("KeySchema", ())]
    if keys == [("HASH", KEY, "S")]:
        return ""
    known = next((f"{_OTHER_KEYS[name]}: " for _, name, _ in keys if name in _OTHER_KEYS), "")
    found = ", ".join(f"{name} {kind} ({of})" for kind, name, of in keys) or "none"
    return f"{known}its keys are {found}, and the KCL's leases have {KEY} (S); the KCL names their table after itself"


def reading_of(items: Iterable[Item]) -> KclReading:
    """All of a table. Never raises."""
    leases: list[KclLease] = []
    others: list[OtherRow] = []
    problems: list[str] = []
    contents: dict[str, str] = {}
    for item in items:
        key = lenient_text(item, KEY)
        contents[key] = repr(_ordered(item))
        try:
            row = _row(key, item)
        except NotAFrontier as problem:
            problems.append(f"{key or 'a row without leaseKey'}: {problem}")
        else:
            if isinstance(row, KclLease):
                leases.append(row)
            else:
                others.append(row)
    return KclReading(tuple(leases), tuple(others), tuple(problems), contents)


def _row(key: str, item: Item) -> KclLease | OtherRow:
    kind = read_text(item, _ENTITY)
    if _CHECKPOINT not in item:
        kind = kind or next((_TOLD_BY[name] for name in _TOLD_BY if name in item), None)
        if kind not in (None, _LEASE):
            worker = key if kind == "WORKER_METRIC_STATS" else lenient_text(item, "ownerName")
            return OtherRow(key, _KINDS.get(str(kind), f"of the kind {kind}"), worker)
    if kind not in (None, _LEASE):
        raise NotAFrontier(f"it has a checkpoint, and its kind is unknown: {shown(kind)}")
    return _lease(key, item)


def _lease(key: str, item: Item) -> KclLease:
    checkpoint = read_text(item, _CHECKPOINT)
    if checkpoint is None:
        raise NotAFrontier("it has no checkpoint")
    if checkpoint not in SENTINELS:
        read_sequence_number(item, _CHECKPOINT)
    stream, shard_id = split_key(key)
    for name, found in (("streamName", stream), ("shardId", shard_id)):
        if stream and (said := read_text(item, name)) not in (None, found):
            raise NotAFrontier(f"{name} is {said!r}, and its key says {found!r}")
    if not shard_id:
        raise NotAFrontier("it has no key")
    read_count(item, "leaseCounter")  # without it nothing could tell whether its owner lives
    return KclLease(
        key=key,
        shard_id=shard_id,
        checkpoint=checkpoint,
        sub_sequence_number=_sub_sequence_number(item, _CHECKPOINT),
        stream=stream,
        owner=read_text(item, "leaseOwner"),
        checkpoint_owner=read_text(item, "checkpointOwner"),
        parents=tuple(sorted(read_texts(item, "parentShardId"))),
        pending=_pending(item),
    )


def _sub_sequence_number(item: Item, name: str) -> int:
    """That of a checkpoint; 0 when there is none."""
    attribute = f"{name}SubSequenceNumber"
    return read_count(item, attribute) if attribute in item else 0


def _pending(item: Item) -> str:
    number = read_text(item, "pendingCheckpoint")
    sub = _sub_sequence_number(item, "pendingCheckpoint") if number else 0
    return f"{number}, sub-sequence number {sub}" if sub else number or ""


def _ordered(value: Any) -> Any:
    """The same value for the same content: DynamoDB returns attributes and sets in any order."""
    if isinstance(value, Mapping):
        ordered = {name: _ordered(value[name]) for name in sorted(value)}
        return {
            kind: sorted(found, key=repr) if kind in ("SS", "NS", "BS") else found for kind, found in ordered.items()
        }
    return [_ordered(one) for one in value] if isinstance(value, list | tuple) else value
