"""A Lambda function for what a Kinesis stream holds. Lines of ``$JOURNAL``: [item, event id, version] of a change of a
table, [key, version] of any other record."""

import base64
import json
import os


def handler(event, context):
    lines = []
    for record in event["Records"]:
        if record["eventSource"] == "aws:kinesis":
            found = json.loads(base64.b64decode(record["kinesis"]["data"]))
            lines.append(json.dumps([found["key"], found["version"]]) + "\n")
            continue
        change = record["dynamodb"]
        image = change.get("NewImage") or {}
        lines.append(json.dumps([change["Keys"]["id"]["S"], record["eventID"], image.get("v")]) + "\n")
    journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, "".join(lines).encode())
    finally:
        os.close(journal)
