"""The handler of the soak: it does what a record asks for, and every effect is one line of ``$JOURNAL``.

A line: key, version, worker, shard id, lease epoch. A record may ask for a failure (``ask``), until a moment of the
wall clock (``until``) or for good (``poison``). What came before it in the batch has had its effect by then and is
repeated.
"""

import os
import signal
import time
from typing import Any

ASKS = ("raise", "partial", "poison", "hang", "exit", "segfault")


def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A Lambda handler that reports what failed in part."""
    lines: list[str] = []
    failed: set[str] = set()
    failures: list[dict[str, str]] = []
    for record in event["Records"]:
        change = record["dynamodb"]
        key, image = change["Keys"]["pk"]["S"], change["NewImage"]
        ask = _asked(image)
        if key in failed or ask == "partial":  # a later version must not overtake the one that failed
            failed.add(key)
            failures.append({"itemIdentifier": change["SequenceNumber"]})
            continue
        if ask:
            _write(lines)
            _fail(ask, key)
        version = image["version"]["N"]
        lines.append(f"{key} {version} {os.environ['WORKER']} {context.shard_id} {context.lease_epoch}\n")
    _write(lines)
    return {"batchItemFailures": failures}


def _asked(image: dict[str, Any]) -> str:
    ask = image.get("ask", {}).get("S", "")
    return ask if ask == "poison" or (ask and time.time() < float(image["until"]["N"])) else ""


def _fail(ask: str, key: str) -> None:
    if ask == "hang":
        time.sleep(3600)
    if ask == "exit":
        os._exit(3)
    if ask == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    raise ValueError(f"{ask}: {key}")


def _write(lines: list[str]) -> None:
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, "".join(lines).encode())
    finally:
        os.close(journal)
