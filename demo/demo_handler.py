"""The Lambda handler of the demo: keeps a journal of what it was given, and chokes on poison."""

from __future__ import annotations

import json
import os
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Append one line per record to ``$DEMO_JOURNAL``; raise on a poison record before anything is written."""
    lines = []
    for record in event["Records"]:
        change = record["dynamodb"]
        image = change.get("NewImage") or change.get("OldImage") or {}
        if image.get("poison", {}).get("BOOL"):
            raise ValueError(f"cannot digest version {image['version']['N']} of {change['Keys']['pk']['S']}")
        lines.append(json.dumps([change["Keys"]["pk"]["S"], record["eventName"], int(image["version"]["N"])]))
    journal = os.open(os.environ["DEMO_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, ("\n".join(lines) + "\n").encode())
    finally:
        os.close(journal)
    return {"batchItemFailures": []}
