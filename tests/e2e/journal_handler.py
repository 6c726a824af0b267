"""Handlers for the end-to-end tests. Every record is one line of ``$JOURNAL`` (O_APPEND: lines never mix).

A line: [key, version, worker, shard id, lease epoch, start of the call (monotonic seconds)].
"""

import json
import os
import time
from pathlib import Path
from typing import TypedDict


def _write(lines: list[list[object]]) -> None:
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, "".join(json.dumps(line) + "\n" for line in lines).encode())
    finally:
        os.close(journal)


def lambda_handler(event, context):
    """Journals first (so that a kill in the middle shows as a repeat, never as a loss), then takes its time."""
    started = time.monotonic()
    if "OUTAGE" in os.environ and Path(os.environ["OUTAGE"]).exists():
        raise ConnectionError("what it needs is down")
    lines = []
    for record in event["Records"]:
        image = record["dynamodb"].get("NewImage") or record["dynamodb"]["OldImage"]
        key, version = record["dynamodb"]["Keys"]["pk"]["S"], int(image["version"]["N"])
        if image.get("poison", {}).get("BOOL") and "MENDED" not in os.environ:
            raise ValueError(f"poison: {key} version {version}")
        lines.append([key, version, os.environ["WORKER"], context.shard_id, context.lease_epoch, started])
    _write(lines)
    time.sleep(float(os.environ.get("HANDLER_SECONDS", "0")))


class Versioned(TypedDict):
    pk: str
    version: int


async def python_handler(records, context):
    """The same for ``kind: python``."""
    started = time.monotonic()
    lines = []
    for record in records:
        image = record.new_image or record.old_image
        if image.get("poison"):
            raise ValueError(f"poison: {record.keys['pk']}")
        item = record.decode(Versioned, image="old" if record.new_image is None else "new")
        lines.append(
            [
                item["pk"],
                item["version"],
                os.environ["WORKER"],
                context.shard_id,
                context.lease_epoch,
                started,
            ]
        )
    _write(lines)
    if "HANDLER_SECONDS" in os.environ:
        import asyncio

        await asyncio.sleep(float(os.environ["HANDLER_SECONDS"]))


def _misbehave(key):
    """What the key asks for, before anything is journalled. Returns an answer for ``garbage``."""
    if key == "exit":
        raise SystemExit(3)
    if key == "interrupt":
        raise KeyboardInterrupt
    if key == "recursion":
        return _misbehave(key)
    if key == "garbage":
        return 42
    if key == "block":
        time.sleep(2 * float(os.environ["LEASE_SECONDS"]))
    return None


def torture_lambda(event, context):
    """One record a call (batch_size 1)."""
    key = event["Records"][0]["dynamodb"]["Keys"]["pk"]["S"]
    if key == "hang":
        time.sleep(3600)
    answer = _misbehave(key)
    return answer if answer is not None else lambda_handler(event, context)


async def torture_python(records, context):
    """The same for ``kind: python``."""
    key = records[0].keys["pk"]
    if key == "hang":
        import asyncio

        await asyncio.sleep(3600)
    answer = _misbehave(key)
    return answer if answer is not None else await python_handler(records, context)


# --- handlers that hurt the daemon they run in (kind: python, isolation: inline) ---------------------------


async def prints(records, context):
    """Leaves text in the buffer of the daemon's own standard output."""
    await python_handler(records, context)
    print(len(records))


async def blocks_the_loop(records, context):
    """Journals, and then the worker named ``victim`` never gives the main loop back."""
    await python_handler(records, context)
    if os.environ["WORKER"] == "victim" and any(record.keys["pk"] == "block" for record in records):
        time.sleep(3600)


async def ignores_its_cancellation(records, context):
    """Journals, and then does not end, whoever asks."""
    import asyncio

    await python_handler(records, context)
    while os.environ["WORKER"] == "victim":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


def hangs_in_its_thread(records, context):
    """A plain function, which runs in a thread: it journals, and nothing ends it but the process."""
    import asyncio

    asyncio.run(python_handler(records, context))
    if os.environ["WORKER"] == "victim":
        time.sleep(3600)


def window_handler(event, context):
    """Counts the records of a tumbling window. A line: [shard id, window start, count before, records, final]."""
    state, records = event["state"], event["Records"]
    count = state.get("count", 0)
    _write([[event["shardId"], event["window"]["start"], count, len(records), event["isFinalInvokeForWindow"]]])
    time.sleep(float(os.environ.get("HANDLER_SECONDS", "0")))
    return {"state": {"count": count + len(records)}}
