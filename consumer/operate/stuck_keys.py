"""Keys that fail over and over while their shards go on, as the status page says it: those of this worker, and those
that others have announced. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from shlex import quote
from typing import Final

from consumer.domain.lease import MOST_FAILING
from consumer.operate.problem import CONFIG, Problem, counted, ids_of, of_kinds, time_in_words
from consumer.operate.status import ShardStatus, Status

STUCK: Final = 10.0  # seconds that a key may fail: half a dozen attempts with the usual back-off
_MOST_SHOWN: Final = 100  # records that the command prints


def stuck_shards(status: Status) -> list[ShardStatus]:
    """Those of this worker with such a key, the one that has failed for longest first. A breaker that is not closed
    says more than the keys behind it."""
    stuck = [one for one in status.shards if (one.failing_for or 0.0) > STUCK and one.breaker == "closed"]
    return sorted(stuck, key=lambda one: -(one.failing_for or 0.0))


def stuck_keys(status: Status) -> Iterator[Problem]:
    """Of this worker's shards."""
    stuck = stuck_shards(status)
    if not stuck:
        return
    number = sum(one.retrying_keys or 0 for one in stuck)
    what = counted(number, "key") if number else "A batch"  # that is being cut, or the end of a window
    where = stuck[0].shard_id if len(stuck) == 1 else counted(len(stuck), "shard")
    kinds = sorted({one.last_error for one in stuck if one.last_error})
    longest = time_in_words(stuck[0].failing_for or 0.0)
    fate = (
        "until AWS trims them, because retry.max_retry_attempts is -1: set a limit and a destination to give them up."
        if status.endless_retries
        else "until retry.max_retry_attempts is used up."
    )
    yield Problem(
        "warning",
        "stuck_keys",
        f"{what} of {where} failing again and again, the first for {longest}{of_kinds(kinds)}.",
        "batch.failed in the log has the error and the number of the record, and the command prints the records from "
        f"there on: try it with invoke, and mend the handler. Only their own records wait, and they are tried {fate}",
        _records_of(status, stuck[0]),
        ids_of(stuck),
    )


def stuck_elsewhere(status: Status) -> Iterator[Problem]:
    """Of shards that other workers have: what they announce in their session rows, and no more."""
    stuck = {shard_id: worker for worker in status.fleet if not worker.mine for shard_id in worker.failing}
    if not stuck:
        return
    first, worker = next(iter(stuck.items()))
    where = first if len(stuck) == 1 else counted(len(stuck), "shard")
    if any(len(one.failing) >= MOST_FAILING for one in stuck.values()):
        where += " or more"
    yield Problem(
        "warning",
        "stuck_keys_elsewhere",
        f"Keys of {where} failing again and again at another worker, {worker.incarnation}.",
        "The page of that worker says more, and its log has batch.failed with the error.",
        f"stream-consumer leases show {quote(first)} {CONFIG}",
        tuple(stuck),
    )


def _records_of(status: Status, shard: ShardStatus) -> str:
    """The command that prints the records of a shard from the first one that is retried on; without its time, what is
    known of the lease."""
    times = [key.since for key in status.keys if key.shard_id == shard.shard_id and key.state == "retrying"]
    since = min(filter(None, times), default=0.0)
    if not since:
        return f"stream-consumer leases show {quote(shard.shard_id)} {CONFIG}"
    begin = datetime.fromtimestamp(int(since), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"stream-consumer tail --shard {quote(shard.shard_id)} --from {begin} --limit {_MOST_SHOWN} {CONFIG}"
