"""Rows of a KCL lease table, as its versions write them, and the table itself."""

from __future__ import annotations

from typing import Any

Item = dict[str, dict[str, Any]]

KEYS: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "leaseKey", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


def lease_item(
    key: str,
    checkpoint: str,
    *,
    owner: str | None = "worker-1",
    counter: int = 7,
    sub: int = 0,
    parents: tuple[str, ...] = (),
    **more: Any,
) -> Item:
    """A lease as KCL 1.x to 3.x have it; ``more`` attributes as typed values."""
    item: Item = {
        "leaseKey": {"S": key},
        "leaseCounter": {"N": str(counter)},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": checkpoint},
        "checkpointSubSequenceNumber": {"N": str(sub)},
    }
    if owner is not None:
        item["leaseOwner"] = {"S": owner}
    if parents:
        item["parentShardId"] = {"SS": list(parents)}
    return item | more


# What KCL 3.5 keeps beside the leases in single-table mode.
METRICS: Item = {
    "leaseKey": {"S": "worker-1"},
    "entityType": {"S": "WORKER_METRIC_STATS"},
    "lut": {"N": "1790000000"},
    "sts": {"M": {"C": {"L": [{"N": "12.5"}, {"N": "11.0"}]}}},
    "opr": {"M": {"C": {"L": [{"N": "80"}]}}},
}
LEADER: Item = {
    "leaseKey": {"S": "Leader"},
    "ownerName": {"S": "worker-1"},
    "leaseDuration": {"S": "120000"},
    "recordVersionNumber": {"S": "2c0e2f0c-4a4e-4d0e-9f4e-0d1d3a2f7d11"},
    "isReleased": {"S": "1"},
}
MIGRATION: Item = {
    "leaseKey": {"S": "Migration3.0"},
    "entityType": {"S": "CLIENT_VERSION_MIGRATION"},
    "cv": {"S": "CLIENT_VERSION_3X"},
    "mb": {"S": "worker-1"},
}
STREAM: Item = {"leaseKey": {"S": "1:orders:1"}, "entityType": {"S": "STREAM"}, "streamId": {"S": "x"}}
