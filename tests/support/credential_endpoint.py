"""A container's credential endpoint on this machine, in a thread, for daemons in other processes."""

from __future__ import annotations

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

Mood = Literal["gives", "fails", "hangs", "nonsense"]


class CredentialEndpoint:
    """Answers as ``mood`` says: with ``key`` for ``seconds``, with 503, never, or with a body that is no answer."""

    def __init__(self) -> None:
        self.mood: Mood = "gives"
        self.key = "KEY1"
        self.seconds = 3600.0
        self.asked = 0
        self._over = threading.Event()
        endpoint = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked += 1
                status, body = endpoint._answer()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """For a process that has no other credentials."""
        url = f"http://127.0.0.1:{self._server.server_port}/"
        nothing = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
        keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "")
        return {**nothing, **keys, "AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "NO_PROXY": "127.0.0.1"}

    def _answer(self) -> tuple[int, bytes]:
        if self.mood == "hangs":
            self._over.wait()
        if self.mood == "fails":
            return 503, b""
        if self.mood == "nonsense":
            return 200, b"{}"
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.seconds)
        answer = {"AccessKeyId": self.key, "SecretAccessKey": "s", "Token": "t", "Expiration": ends.isoformat()}
        return 200, json.dumps(answer).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
