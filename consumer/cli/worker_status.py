"""What a worker that can be reached says of itself: its ``/status.json``."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TIMEOUT: Final = 1.0  # seconds
MOST_BYTES: Final = 32 * 1024 * 1024  # of an answer: 5,000 shards have 1.5 MB
_MOST: Final = 1e18
HANDLED: Final = "handled"  # the name of records that are handled, in the totals


@dataclass(frozen=True, slots=True)
class OwnedShard:
    """What only the owner of a shard knows; None where it does not say. Seconds, and records."""

    lag: float | None = None
    in_flight: int | None = None
    failing: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """``problem`` says why there is nothing else, empty when there is. ``handled``: records since its start.
    ``dead_letter_backlog``: letters at the destination; None when it is not known."""

    address: str
    problem: str = ""
    incarnation: str = ""
    version: str = ""
    state: str = ""
    handled: int | None = None
    dead_letter_backlog: int | None = None
    shards: Mapping[str, OwnedShard] = field(default_factory=dict)


def worker_status(host: str, port: int, application: str, timeout: float = TIMEOUT) -> WorkerStatus:
    """Ask one worker. Never raises: another program may be there, or nothing."""
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/status.json", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read(MOST_BYTES)
        if answer.status != 200:
            return WorkerStatus(address, f"answers {answer.status}")
        found = json.loads(body)
        if not isinstance(found, dict):
            return WorkerStatus(address, "is no worker")
        return _of(address, found, application)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return WorkerStatus(address, f"is not reached: {getattr(error, 'strerror', None) or error}")
    except (ValueError, RecursionError):
        return WorkerStatus(address, "is no worker")
    finally:
        connection.close()


def _of(address: str, found: Mapping[str, Any], application: str) -> WorkerStatus:
    if found.get("application") not in (application, None):
        return WorkerStatus(address, f"is of the application {found['application']}")
    shards: dict[str, OwnedShard] = {}
    listed, totals = found.get("shards"), found.get("totals")
    for shard in listed if isinstance(listed, list) else ():
        if isinstance(shard, dict) and shard.get("mine"):
            shards[str(shard.get("shard_id"))] = OwnedShard(
                _number(shard.get("lag")),
                _count(shard.get("in_flight")),
                _count(shard.get("retrying_keys")),
                str(shard.get("note") or ""),
            )
    handled = _count(totals.get(HANDLED)) if isinstance(totals, dict) else None
    state = "wedged" if not found.get("healthy", True) else "ready" if found.get("ready") else "not ready"
    return WorkerStatus(
        address,
        incarnation=str(found.get("incarnation") or ""),
        version=str(found.get("version") or ""),
        state=state,
        handled=handled,
        dead_letter_backlog=_count(found.get("dead_letter_backlog")),
        shards=shards,
    )


def _number(value: Any) -> float | None:
    """None for what is no number that a worker gives: JSON has also those that are too large."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not -_MOST < value < _MOST:
        return None
    return float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
