"""The health server on a thread of its own, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

from consumer.operate.health_server import HealthServer
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard

LIFE = 1.5  # seconds a connection may live in these tests; five in production


class Running:
    """The server on a thread and loop of its own, as the control thread runs it."""

    def __init__(self, board: StatusBoard | None = None, life: float = LIFE) -> None:
        self.board = board or StatusBoard()
        self.metrics = Metrics()
        self.loop = asyncio.new_event_loop()
        self.server = HealthServer(self.board, self.metrics, host="127.0.0.1", port=0, connection_seconds=life)
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self.server.start())
        self.port = self.server.port

    def call(self, coroutine: object) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(5)  # type: ignore[arg-type]  # any awaitable

    def stop(self) -> None:
        self.call(self.server.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def raw(self, request: bytes) -> bytes:
        """What comes back until the server closes."""
        with self.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(request)
            return drain(client)

    def get(self, path: str, method: str = "GET", headers: str = "") -> tuple[int, str, bytes]:
        head, _, body = self.raw(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()).partition(
            b"\r\n\r\n"
        )
        return int(head.split()[1]), head.decode().lower(), body


def drain(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := client.recv(65536):
            answer += chunk
    return answer
