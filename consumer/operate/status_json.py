"""``/status.json``: everything that the status page shows, for the page itself and for scripts.

Of a shard ``ALWAYS`` is there, and of the rest what is known, so that a thousand of them stay below 300 KB. No data of
items: keys are digests, and errors their type and place, unless ``http.show_errors`` asks for their texts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from hashlib import blake2b
from typing import Any, Final

from consumer.domain.prices import cost_of_calls
from consumer.operate.price_list import list_prices
from consumer.operate.problem import CONFIG_FILE
from consumer.operate.status import SLOW, ShardStatus, Status, StatusBoard
from consumer.operate.verdict import Verdict, judge

PRICED: Final = 300.0  # seconds that calls are counted before they are priced: a start asks for much, once
BEHIND: Final = 60.0  # seconds that reading is behind, from which one worker more is wished for
ALWAYS: Final = ("shard_id", "state", "owner", "mine", "epoch", "note", "parents")  # of a shard
_SHARD_FIELDS: Final = tuple(one.name for one in fields(ShardStatus))
_DECIMALS: Final = {"lag": 1, "headroom": 0, "failing_for": 0, "checkpoint_age": 1, "hot_key_share": 3}


class StatusJson:
    """The document of a board, encoded once for each change. Use it on one thread."""

    def __init__(self, board: StatusBoard) -> None:
        self._board = board
        self._seen: object = None
        self._body = b""
        self._tag = ""

    def encoded(self) -> tuple[bytes, str, float]:
        """The document, an entity tag that changes when anything but its time does, and that time (Unix seconds by this
        machine's clock, as the Date of an answer; 0 before there is one)."""
        board = self._board
        status, errors = board.status, board.errors
        health, readiness = board.health(), board.readiness()
        seen = (status, errors, health, readiness, board.progress_age)
        updated_at = 0.0 if status is None else status.updated_at
        if seen != self._seen or not self._body:
            self._seen = seen
            config_file = board.config_file or CONFIG_FILE
            document = _document(board, status, judge(status, health, readiness, errors, config_file=config_file))
            self._tag = f'W/"{blake2b(_encode(document), digest_size=12).hexdigest()}"'
            self._body = _encode({**document, "updated_at": updated_at})
        return self._body, self._tag, 0.0 if status is None else status.reported_at


def status_json(board: StatusBoard) -> bytes:
    """Times are Unix seconds: those of errors by this machine's clock, the others by that of AWS."""
    return StatusJson(board).encoded()[0]


def _document(board: StatusBoard, status: Status | None, verdict: Verdict) -> dict[str, Any]:
    healthy, health = board.health()
    ready, readiness = board.readiness()
    body: dict[str, Any] = {
        "severity": verdict.severity,
        "headline": verdict.headline,
        "problems": [_plain(problem) for problem in verdict.problems],
        "healthy": healthy,
        "health": health,
        "ready": ready,
        "readiness": readiness,
        "progress_age": round(board.progress_age, 3),
        "errors": [_plain(group) for group in board.errors],
    }
    if status is not None:
        body |= _of_worker(status)
    return body


def _of_worker(status: Status) -> dict[str, Any]:
    return {
        "application": status.application,
        "table": status.table,
        "incarnation": status.incarnation,
        "stream_arn": status.stream_arn,
        "version": status.version,
        "started_at": status.started_at,
        "workers": status.workers,
        "parked_keys": status.parked_keys,
        "oldest_parked": status.oldest_parked,
        "letters_waiting": status.letters_waiting,
        "dead_letter_backlog": status.dead_letter_backlog,
        "clock_ahead": round(status.clock_ahead),
        "free_leases": status.free_leases,
        "totals": dict(status.totals),
        "scaling": _scaling(status),
        "fleet": [_plain(worker) for worker in status.fleet],
        "keys": [_plain(key) for key in status.keys],
        "history": _plain(status.history),
        "call_costs": _call_costs(status),
        "changed_settings": dict(status.changed_settings),
        "slow": dict(SLOW),
        "finished_count": status.finished_count,
        "finished": [{"shard_id": shard_id, "parents": parents} for shard_id, parents in status.finished],
        "shards": [_shard(shard) for shard in status.shards],
    }


def _scaling(status: Status) -> dict[str, float]:
    """For an autoscaler: how far this worker is behind, and how many workers can have a shard at all. One that is alone
    with several shards and keeps up needs no help, so the wish grows with the age of what it reads. Lag also grows
    while one key keeps failing, which no worker more would change."""
    open_shards = sum(1 for shard in status.shards if shard.state in ("open", "waiting"))
    wanted = status.workers + 1 if status.iterator_age > BEHIND else status.workers
    return {
        "lag_seconds": round(_finite(status.lag) or 0.0, 1),
        "iterator_age_seconds": round(_finite(status.iterator_age) or 0.0, 1),
        "open_shards": open_shards,
        "desired_workers": max(1, min(wanted, open_shards)),
    }


def _call_costs(status: Status) -> dict[str, Any]:
    """Of the AWS calls of this worker a month, at list prices; without what is not paid by the call, and nothing yet
    while there are no more calls to go by than those of a start."""
    prices, history = list_prices(), status.history
    calls = history.calls_per_hour if history.seconds >= PRICED else {}
    kinesis = ":kinesis:" in status.stream_arn
    found = cost_of_calls(calls, "kinesis" if kinesis else "dynamodb", prices)
    return {
        "dollars_a_month": round(found.dollars_a_month, 2) if calls else None,
        "by_operation": {name: round(dollars, 2) for name, dollars in found.by_operation.items()},
        "prices_as_of": prices.as_of,
        "prices_of": prices.region,
    }


def _shard(shard: ShardStatus) -> dict[str, Any]:
    found = {}
    for name in _SHARD_FIELDS:
        value = getattr(shard, name)
        if value is None and name not in ALWAYS:
            continue
        if type(value) is float:
            if not math.isfinite(value):
                continue
            value = round(value, _DECIMALS.get(name, 2))
        found[name] = value
    return found


def _plain(value: Any) -> dict[str, Any]:
    """A flat dataclass as a mapping with finite numbers."""
    return {one.name: _finite(getattr(value, one.name)) for one in fields(value)}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, default=str, separators=(",", ":")).encode("ascii")
