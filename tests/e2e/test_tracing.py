"""Spans of a real worker, as a collector gets them by OTLP."""

from __future__ import annotations

import gzip
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet

pytestmark = pytest.mark.soak


@contextmanager
def collector() -> Iterator[tuple[int, list[ExportTraceServiceRequest]]]:
    """Its port, and what it gets."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_spans_of_reads_calls_and_checkpoints(aws: Aws, fleet: Fleet) -> None:
    with collector() as (port, received):
        expected = aws.write(fleet.table, 10, range(1, 6))
        there = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_SERVICE_NAME": "projector"}
        worker = fleet.start("w1", there, tracing={"enabled": True})
        fleet.wait_for(expected)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    resources = [resource for request in received for resource in request.resource_spans]
    names = {a.value.string_value for r in resources for a in r.resource.attributes if a.key == "service.name"}
    assert names == {"projector"}
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    counted = Counter(span.name.partition(" ")[0] for span in spans)
    assert set(counted) == {"receive", "process", "checkpoint"}
    handled = sum(
        attribute.value.int_value
        for span in spans
        if span.name.startswith("process")
        for attribute in span.attributes
        if attribute.key == "messaging.batch.message_count"
    )
    assert handled == len(expected)
