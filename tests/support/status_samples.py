"""Snapshots that a status page has to show well: a healthy fleet, an incident, a thousand shards."""

from __future__ import annotations

import math
import random
from typing import Any

from consumer.operate.error_groups import ErrorReport
from consumer.operate.history import POINTS, STEP, History, Past
from consumer.operate.status import START_STEPS, KeyStatus, ShardStatus, Status, StatusBoard, WorkerStatus

WORKERS = tuple(f"orders-projector-6d9f7c{n}/1/2f0c6d{n}b/10s" for n in range(1, 4))
ME = WORKERS[0]
TOTALS = {
    "handled": 48_211_907,
    "dead_lettered": 3,
    "before_start": 0,
    "superseded": 0,
    "retries": 412,
    "duplicates_skipped": 1_204,
    "filtered": 90_311,
    "gaps": 0,
}
CONFIG = {
    "application": "orders-projector",
    "source.table": "orders",
    "handler.target": "projector:handle",
    "handler.processes": "4",
    "batch.batch_size": "250",
    "on_failure.destination": "arn:aws:sqs:eu-west-1:123456789012:orders-dead-letters",
    "on_failure.order": "park_key",
}


def shard_id(number: int) -> str:
    """As DynamoDB names them: the creation time, and something random."""
    return f"shardId-{1_764_000_000_000 + number * 60_000:020}-{number * 2654435761 % 2**32:08x}"


def past(now: float, peak: float = 0.0, letters: float = 0.0) -> Past:
    """A quarter of an hour of traffic; the lag grows to ``peak`` (seconds) in its last third."""
    dice, history = random.Random(7), History()
    counted = {"handled": 0.0, "dead_letters": 0.0, "throttles": 0.0}
    calls = {"GetRecords": 0.0, "UpdateItem": 0.0, "Query": 0.0, "GetItem": 0.0}
    for step in range(POINTS + 1):
        late = max(0.0, step / POINTS - 2 / 3) * 3
        history.observe(now + step * STEP, 0.3 + dice.random() * 0.4 + peak * late)
        history.add(now + step * STEP, counted, calls)
        counted["handled"] += (
            STEP * (900 + 300 * math.sin(step / 9) + 80 * dice.random()) * (1 - 0.6 * late * bool(peak))
        )
        counted["dead_letters"] += letters * (late > 0.3)
        for number, name in enumerate(calls):
            calls[name] += (48, 11, 9, 10)[number] + dice.randrange(3)
    return history.past


def own(number: int, **values: Any) -> ShardStatus:
    """A shard of this worker that is all right, but for ``values``."""
    usual: dict[str, Any] = {
        "lag": 0.4,
        "in_flight": 120,
        "retrying_keys": 0,
        "deferred_keys": 0,
        "parked_keys": 0,
        "checkpoint_age": 0.6,
        "breaker": "closed",
        "parents": (shard_id(number - 100),),
        "headroom": 86_399.0,
        "read_rate": 90.0 + number % 7 * 11,
    }
    return ShardStatus(shard_id(number), "open", ME, mine=True, epoch=3, **{**usual, **values})


def others(number: int, state: str = "open", **values: Any) -> ShardStatus:
    """A shard of another worker."""
    usual: dict[str, Any] = {"owner": WORKERS[1 + number % 2], "epoch": 2, "parents": (shard_id(number - 100),)}
    return ShardStatus(shard_id(number), state, **{**usual, **values})


def status(now: float, shards: tuple[ShardStatus, ...], **values: Any) -> Status:
    """Of the worker ``ME``, reported at ``now`` (Unix seconds)."""
    leases = [sum(shard.owner == worker for shard in shards) for worker in WORKERS]
    usual: dict[str, Any] = {
        "stream_arn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-11-01T08:00:00.000",
        "version": "0.1.0",
        "started_at": now - 190_000,
        "updated_at": now,
        "workers": 3,
        "totals": TOTALS,
        "dead_letter_backlog": 0,
        "fleet": tuple(
            WorkerStatus(one, one == ME, leases[n], "0.1.0", now - 190_000 + 40 * n) for n, one in enumerate(WORKERS)
        ),
        "history": past(now),
        "changed_settings": CONFIG,
        "finished": tuple((shard_id(n - 100), (shard_id(n - 200),)) for n in range(300, 306)),
        "finished_count": 42,
    }
    return Status("orders-projector", "orders", ME, shards=shards, **{**usual, **values})


def board(found: Status | None, *, show_errors: bool = False) -> StatusBoard:
    """A board of a worker that has started, with ``found``."""
    made = StatusBoard(show_errors=show_errors)
    for step in START_STEPS:
        made.reached(step)
    if found is not None:
        made.publish(found)
    return made


def healthy(now: float) -> StatusBoard:
    return board(status(now, (*map(own, range(300, 306)), *map(others, range(306, 312)))))


def incident(now: float) -> StatusBoard:
    """One shard is halted, one pauses for its breaker, letters are refused, keys are parked and stuck."""
    broken = own(
        300, lag=1_130.0, in_flight=2_048, retrying_keys=96, breaker="open", last_error="ConnectionRefusedError",
        slow_because="breaker", headroom=85_270.0, checkpoint_age=0.9, read_rate=12.0,
    )  # fmt: skip
    hot = own(
        301, lag=48.0, in_flight=5_210, slow_because="place", read_rate=1_410.0, hot_key="dshCdVqX5CScXxHy",
        hot_key_share=0.71,
    )  # fmt: skip
    refused = own(302, lag=214.0, retrying_keys=3, parked_keys=2, slow_because="destination", in_flight=7)
    deferred = own(
        303, lag=640.0, deferred_keys=2, retrying_keys=2, slow_because="retrying", failing_for=1_128.0,
        last_error="ValueError",
    )  # fmt: skip
    halted = others(306, "halted", owner=WORKERS[1], note="records were trimmed before they were read")
    free = others(311, owner=None, epoch=4)
    child = others(420, "waiting", owner=None, epoch=0, parents=(shard_id(300),))
    shards = (broken, hot, refused, deferred, own(304), own(305), halted, *map(others, range(307, 311)), free, child)
    keys = (
        KeyStatus("Uo4rxqPEf6KpR2Qa", "retrying", deferred.shard_id, now - 1_130),
        KeyStatus("nB2k9sLwQe81mZpc", "retrying", deferred.shard_id, now - 640),
        KeyStatus("nB2k9sLwQe81mZpc", "deferred", deferred.shard_id, now - 612),
        KeyStatus("dshCdVqX5CScXxHy", "parked", since=now - 5_400),
        KeyStatus("T7yPq0aWcVb3XnLd", "parked", since=now - 1_200),
    )
    found = board(
        status(
            now,
            shards,
            parked_keys=2,
            oldest_parked=now - 5_400,
            keys=keys,
            letters_waiting=3,
            dead_letter_backlog=58,
            free_leases=1,
            free_for=140.0,
            endless_retries=True,
            history=past(now, peak=1_130.0, letters=2.0),
            totals={**TOTALS, "dead_lettered": 61},
            fleet=(
                WorkerStatus(ME, True, 6, "0.2.0", now - 5_000),
                WorkerStatus(WORKERS[1], False, 3, "0.1.0", now - 190_000),
                WorkerStatus(WORKERS[2], False, 2, "0.1.0", now - 190_000, leaving=True),
            ),
        )
    )
    for seconds, report in (
        (900, ErrorReport("shard.gap", shard_id=halted.shard_id)),
        (610, ErrorReport("breaker.opened", "ConnectionRefusedError", "projector.py:41 in handle", broken.shard_id)),
        *((300 - n, ErrorReport("dead_letter.refused", "PermissionDenied", "", refused.shard_id)) for n in range(290)),
        (30, ErrorReport("dead_letter.sent", "ValueError", "", refused.shard_id, text="customer-17 has no address")),
    ):
        found.error(report, now - seconds)
    return found


def thousand(now: float) -> StatusBoard:
    """A thousand shards, a third of them here; three are stopped, far from the beginning of the list."""
    shards = [
        own(n, lag=round(abs(math.sin(n)) * 3, 1)) if n % 3 == 0 else others(n, parents=(shard_id(n - 5000),))
        for n in range(9_000, 10_000)
    ]
    shards[417] = others(9_417, "halted", note="records were trimmed before they were read")
    shards[612] = others(9_612, "halted", note="records were trimmed before they were read")
    shards[958] = others(9_958, "quarantined", note="runs holds something that is not a run")
    return board(status(now, tuple(shards)))
