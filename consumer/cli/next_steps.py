"""What the daemon would do after a call, in words: the rules of ``domain/pieces.py`` and ``domain/settlement.py`` with
the numbers of a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from consumer.domain.outcome import Outcome
from consumer.domain.stream_record import StreamRecord
from consumer.settings.model import Settings
from consumer.settings.units import format_duration


def next_steps(settings: Settings, records: Sequence[StreamRecord], outcome: Outcome | None, attempt: int) -> list[str]:
    """One line for each step. ``outcome`` is None when no record was left to call the handler with."""
    if outcome is None:
        return ["nothing is called: all records are filtered, and settled by that"]
    if outcome.kind == "ok":
        state = ", and the state of the window is stored" if outcome.state is not None else ""
        return [f"{_count(len(records))} settled, and in no later call{state}"]
    if outcome.kind == "not_invoked":
        return [f"the call is repeated after {_pause(settings, 1)}, and no retry is spent: user code did not run"]
    return [*_parts(settings, records, outcome), *_retries(settings, attempt)]


def _count(number: int) -> str:
    return "1 record is" if number == 1 else f"{number} records are"


def _parts(settings: Settings, records: Sequence[StreamRecord], outcome: Outcome) -> Iterator[str]:
    """What is settled, and how the rest is tried again."""
    by_key, bisects = settings.batch.order == "key", settings.retry.bisect_on_error
    if outcome.kind == "partial":
        lowest = min((record for record in records if record.sequence_number in outcome.failed), key=_number)
        before = sum(_number(record) < _number(lowest) for record in records)
        names = ", ".join(outcome.failed[:5]) + ("..." if len(outcome.failed) > 5 else "")
        if not by_key:
            first = lowest.sequence_number
            yield f"{_count(before)} settled, those before {first}; the others are tried again, as a new batch"
        elif outcome.exact:
            yield f"tried again: {names} and the later records of their keys; all others are settled"
        else:
            yield f"tried again: {names} and the later records of its key; {_count(before)} settled, those before it"
            yield "the others behind it are called at once, without that key: the function may have stopped there"
        return
    if len(records) == 1:
        return
    if by_key:
        yield "the batch is cut by keys, which spends no retry, until the failing ones stand alone; all others go on"
    if bisects:
        yield ("records of one key" if by_key else "the batch") + " are cut into halves until one record fails alone"
    elif not by_key:
        yield "the whole batch is tried again"


def _retries(settings: Settings, attempt: int) -> Iterator[str]:
    """What becomes of a record that goes on to fail."""
    retry, destination = settings.retry, settings.on_failure.destination
    end = f"its dead letter goes to {destination}" if destination else "it is lost, with a trace (no destination)"
    left = retry.max_retry_attempts - (attempt - 1)
    if retry.max_retry_attempts >= 0 and left <= 0:
        yield f"a record that failed alone has no retry left: {end}"
        return
    first, longest = _pause(settings, attempt), format_duration(retry.backoff.max)
    until = f"{left} more time{'s' * (left > 1)}" if retry.max_retry_attempts >= 0 else "until it expires"
    if retry.max_record_age >= 0:
        until += f", or is {format_duration(retry.max_record_age)} old"
    elif retry.max_retry_attempts < 0:
        kept = "when its retention is over" if settings.source.kind == "kinesis" else "after 24 hours"
        until += f" from the stream, {kept}"
    yield f"a record that fails alone is tried again after {first}, doubling to {longest}, {until}; then {end}"


def _number(record: StreamRecord) -> int:
    return int(record.number)


def _pause(settings: Settings, failures: int) -> str:
    backoff = settings.retry.backoff
    return format_duration(min(backoff.max, backoff.initial * 2.0 ** min(failures - 1, 60)))
