"""One call of the handler outside of the daemon, and what is shown of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from consumer.cli.failures import EX_USAGE, fail, one_line_errors, records_or_exit
from consumer.cli.handler_run import output_on_stderr, started_handler
from consumer.cli.next_steps import next_steps
from consumer.domain.kinesis_records import KinesisRecord
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.domain.record import Record
from consumer.domain.stream_record import StreamRecord
from consumer.domain.windows import TimeWindow, WindowCall
from consumer.settings.aws_names import stream_region
from consumer.settings.model import Settings

_SHARD = "shardId-invoke"


def invoked(settings: Settings, event: Path, attempt: int, *, as_json: bool) -> bool:
    """Call the handler with the records of the file ``event`` and print what came of it; whether all are handled, or
    filtered."""
    given = records_or_exit(event, settings)
    filters = settings.compiled_filters()
    records = [_completed(record, settings) for record in given if not filters or filters.matches(record)]
    if len({record.sequence_number for record in records}) < len(records):
        fail(f"{click.format_filename(event)} holds a sequence number twice: a batch of the daemon does not", EX_USAGE)
    shown: dict[str, Any] = {
        "handler": f"{settings.handler.kind} {settings.handler.code}",
        "records": len(given),
        "filtered": len(given) - len(records),
        "made_up": _made_up(given),
    }
    outcome: Outcome | None = None
    if records:
        with output_on_stderr() as lines, one_line_errors():
            outcome = asyncio.run(_called(settings, records, attempt))
        shown |= {"lines": lines} | _described(outcome)
    shown["next"] = next_steps(settings, records, outcome, attempt)
    click.echo(json.dumps(shown, indent=2, ensure_ascii=False) if as_json else _as_text(shown))
    return outcome is None or outcome.kind == "ok"


async def _called(settings: Settings, records: Sequence[StreamRecord], attempt: int) -> Outcome:
    call = HandlerCall(
        records=records,
        request_id=str(uuid.uuid4()),
        attempt=attempt,
        application=settings.application,
        shard_id=_SHARD,
        lease_epoch=1,
        timeout=settings.handler.timeout,
        window=_window(settings, records),
    )
    async with started_handler(settings) as handler:
        turn = await handler.reserve()
        try:
            return await turn.run(call)
        finally:
            turn.release()


def _completed(record: StreamRecord, settings: Settings) -> StreamRecord:
    """With what a whole record of the configured stream has, and a part of one lacks."""
    arn = record.event_source_arn or settings.source.stream_arn or _example_arn(settings)
    fields = {"event_source_arn": arn}
    if isinstance(record, Record):
        change = record.dynamodb
        new, old = (memoryview(image).nbytes > 0 for image in (change.NewImage, change.OldImage))
        fields["event_id"] = record.event_id or uuid.uuid4().hex
        fields["event_name"] = record.event_name or ("MODIFY" if new and old else "REMOVE" if old else "INSERT")
        fields["aws_region"] = record.aws_region or stream_region(arn)
    elif isinstance(record, KinesisRecord):
        shard_id, _, _ = record.event_id.rpartition(":")
        fields["event_id"] = record.event_id if shard_id else f"{_SHARD}:{record.sequence_number}"
        fields["aws_region"] = record.aws_region or stream_region(arn)
    return msgspec.structs.replace(record, **fields)


def _made_up(records: Sequence[StreamRecord]) -> list[str]:
    """What ``_completed`` adds to some of them."""
    fields = {"eventName": "event_name", "eventSourceARN": "event_source_arn"}
    return [field for field, name in fields.items() if not all(getattr(record, name) for record in records)]


def _example_arn(settings: Settings) -> str:
    region = settings.aws.region or "us-east-1"
    if settings.source.stream is not None:
        return f"arn:aws:kinesis:{region}:123456789012:stream/{settings.source.stream}"
    table = str(settings.source.table)
    if table.startswith("arn:"):
        return f"{table}/stream/2026-01-01T00:00:00.000"
    return f"arn:aws:dynamodb:{region}:123456789012:table/{table}/stream/2026-01-01T00:00:00.000"


def _window(settings: Settings, records: Sequence[StreamRecord]) -> WindowCall | None:
    """The first call of the window that the first record lies in."""
    size = int(settings.batch.tumbling_window)
    if not size:
        return None
    start = int(max(0.0, records[0].created)) // size * size
    return WindowCall(TimeWindow(start, start + size), stream_arn=records[0].event_source_arn)


def _described(outcome: Outcome) -> dict[str, Any]:
    fault = outcome.fault
    error = None
    if fault is not None:
        error = {"kind": fault.kind, "type": fault.type, "message": fault.message, "stack": list(fault.stack)}
    answer = None if outcome.answer is None else outcome.answer.decode("utf-8", "backslashreplace")
    return {
        "outcome": outcome.kind,
        "failed": list(outcome.failed),
        "answer": answer,
        "error": error,
        "milliseconds": round(outcome.seconds * 1000, 1),
    }


def _as_text(shown: dict[str, Any]) -> str:
    rows = [("handler", shown["handler"])]
    filtered = f", {shown['filtered']} of them filtered" if shown["filtered"] else ""
    rows.append(("records", f"{shown['records']}{filtered}"))
    if shown["made_up"]:
        rows.append(("note", f"made up where a record has none: {', '.join(shown['made_up'])}"))
    if "outcome" in shown:
        count = len(shown["lines"])
        rows.append(("output", f"{count} line{'s' * (count != 1)}, on standard error"))
        rows.append(("time", f"{shown['milliseconds']} ms"))
        if shown["answer"] is not None:
            rows.append(("answer", shown["answer"]))
        failed = f": {', '.join(shown['failed'])}" if shown["failed"] else ""
        rows.append(("outcome", f"{shown['outcome']}{failed}"))
        if shown["error"] is not None:
            rows.append(("error", f"{shown['error']['type']}: {shown['error']['message']}"))
            rows += [("", line) for part in shown["error"]["stack"] for line in part.rstrip("\n").split("\n")]
    rows += [("next" if place == 0 else "", step) for place, step in enumerate(shown["next"])]
    return "\n".join(f"{name:<9}{_plain(text)}".rstrip() for name, text in rows)


def _plain(text: str) -> str:
    """Nothing that the handler says reaches the terminal as control characters."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
