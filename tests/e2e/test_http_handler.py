"""A function behind the Runtime Interface Emulator, called by a real daemon: one call at a time, errors with 200."""

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import ROOT, Fleet, wait_until
from tests.support.threads import serving

PATH = "/2015-03-31/functions/function/invocations"


class Emulator(ThreadingHTTPServer):
    """Answers as Lambda's emulator does. ``refuse_next``: calls that find it throttled, before the function runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.one_at_a_time = threading.Lock()
        self.refuse_next = 0
        self.refused = 0
        self.calls: list[list[tuple[str, int]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{PATH}"

    def function(self, event: dict[str, Any]) -> Any:
        batch = []
        for record in event["Records"]:
            image = record["dynamodb"]["NewImage"]
            batch.append((image["pk"]["S"], int(image["version"]["N"])))
        self.calls.append(batch)
        if any(key == "poison" for key, _ in batch):
            return {"errorMessage": "poison", "errorType": "ValueError", "requestId": "x", "stackTrace": []}
        return None


class _Request(BaseHTTPRequestHandler):
    server: Emulator
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != PATH:
            self._say(404)
        elif not self.server.one_at_a_time.acquire(blocking=False):
            self._say(400)
        else:
            try:
                self._run(event)
            finally:
                self.server.one_at_a_time.release()

    def _run(self, event: dict[str, Any]) -> None:
        if self.server.refuse_next:
            self.server.refuse_next -= 1
            self.server.refused += 1
            self._say(429)
        else:
            self._say(200, json.dumps(self.server.function(event)).encode())

    def _say(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        pass


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving(Emulator()) as server:
        yield server


def test_a_function_behind_a_url(aws: Aws, fleet: Fleet, emulator: Emulator) -> None:
    """Everything arrives in order; poison is called twice (one retry), whatever was refused before; then it is in the
    dead letters with what the function said."""
    url, queue = aws.queue()
    emulator.refuse_next = 5
    aws.poison(fleet.table, "poison", 1)
    written = aws.write(fleet.table, 20, range(1, 4))
    worker = fleet.start(
        "w1",
        handler={"kind": "http", "target": emulator.url, "timeout": "5s"},
        batch={"batch_size": 5, "parallelization_factor": 4},
        on_failure={"destination": queue},
    )
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == 1, 40, "the dead letter")
    wait_until(lambda: written <= {one for batch in emulator.calls for one in batch}, 40, "every record")
    assert emulator.refused == 5
    poisoned = [batch for batch in emulator.calls if ("poison", 1) in batch]
    assert poisoned[-2:] == [[("poison", 1)]] * 2, "bisected, then retried once"
    assert len(poisoned[-3]) > 1
    (letter,) = map(json.loads, aws.messages(url))
    assert letter["requestContext"]["approximateInvokeCount"] == 2
    assert letter["error"]["errorType"] == "ValueError"
    good = [one for batch in emulator.calls if ("poison", 1) not in batch for one in batch]
    assert len(good) == len(set(good)) == len(written)
    for key in {key for key, _ in written}:
        assert [version for name, version in good if name == key] == [1, 2, 3]


class _Echo(BaseHTTPRequestHandler):
    """Refuses, and quotes what it was asked for, as many servers do."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = f"Cannot POST {self.path} with {self.headers['Authorization']} at http://a:hunter2@h/?x=SECRET".encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_the_credentials_of_urls_reach_nothing_that_is_shown(aws: Aws, fleet: Fleet) -> None:
    """Neither letters, log, page, `/status.json`, metrics nor `check-config --print-effective`."""
    url, queue = aws.queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            aws.write(fleet.table, 1, range(1, 2))
            endpoints = dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs"), aws.endpoint)
            worker = fleet.start(
                "w1",
                handler={"kind": "http", "target": f"http://svc:hunter2@127.0.0.1:{server.server_port}/in?key=SECRET"},
                aws={"endpoints": {**endpoints, "s3": "http://svc:hunter2@127.0.0.1:9/?key=SECRET"}},
                on_failure={"destination": queue},
                logging={"level": "debug"},
                http={"show_errors": True},
            )
            wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == 1, 40, "the dead letter")
            shown = [worker.metrics(), json.dumps(worker.status()), worker.log.read_text(), *aws.messages(url)]
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/", timeout=5) as page:
                shown.append(page.read().decode())
        finally:
            server.shutdown()
            thread.join()
    printed = subprocess.run(
        [sys.executable, "-m", "consumer", "check-config", "--print-effective", str(worker.config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    shown.append(printed.stdout + printed.stderr)
    assert [len(text) > 0 for text in shown] == [True] * 6
    assert [text for text in shown if "hunter2" in text or "SECRET" in text or "c3ZjOmh1bnRlcjI" in text] == []
    assert "Cannot POST /in?REDACTED" in shown[3]
