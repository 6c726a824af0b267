"""The function in Python, with the boto3 of its own environment."""

import json
import os
import time

import boto3


def handler(event, context):
    print("boto3", boto3.__version__, "call", context.aws_request_id)
    failed, lines = [], []
    for record in event["Records"]:
        change = record["dynamodb"]
        image = change.get("NewImage", {})
        do = image.get("do", {}).get("S", "")
        if do == "fail":
            raise ValueError("no such order")
        if do == "hang":
            time.sleep(3600)
        if do == "exit":
            os._exit(3)
        if do == "partial":
            failed.append({"itemIdentifier": change["SequenceNumber"]})
            continue
        lines.append(json.dumps([change["Keys"]["pk"]["S"], int(image.get("version", {}).get("N", 0))]) + "\n")
    if "JOURNAL" in os.environ:
        journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(journal, "".join(lines).encode())
        os.close(journal)
    return {"batchItemFailures": failed}
