"""The function in Python. Besides, ``python`` runs the statements in ``code``, which may set ``answer``."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time


def handler(event, context):
    print("python call", context.aws_request_id)
    failed, lines = [], []
    for record in event["Records"]:
        change = record["dynamodb"]
        image = change.get("NewImage", {})
        do = image.get("do", {}).get("S", "")
        if do in DO:
            return DO[do](image, context)
        if do == "partial":
            failed.append({"itemIdentifier": change["SequenceNumber"]})
            continue
        lines.append(json.dumps([change["Keys"]["pk"]["S"], int(image.get("version", {}).get("N", 0))]) + "\n")
    if "JOURNAL" in os.environ:
        journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(journal, "".join(lines).encode())
        os.close(journal)
    return {"batchItemFailures": failed}


def fail(image, context):
    raise ValueError("no such order")


def child(image, context):
    started = subprocess.Popen(["sleep", "3600"])
    pathlib.Path(image["file"]["S"]).write_text(str(started.pid))
    time.sleep(3600)


def say(image, context):
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)


def tell(image, context):
    known = [context.aws_request_id, context.get_remaining_time_in_millis(), context.invoked_function_arn]
    pathlib.Path(image["file"]["S"]).write_text(json.dumps(known))


def run(image, context):
    names = {"__name__": __name__}
    exec(image["code"]["S"], names)
    return names.get("answer")


DO = {
    "fail": fail,
    "answer": lambda image, context: json.loads(image["answer"]["S"]),
    "large": lambda image, context: "x" * 6_300_000,
    "unmarshalable": lambda image, context: object(),
    "hang": lambda image, context: time.sleep(3600),
    "child": child,
    "exit": lambda image, context: os._exit(3),
    "kill": lambda image, context: os.kill(os.getpid(), signal.SIGKILL),
    "print": say,
    "context": tell,
    "python": run,
}
