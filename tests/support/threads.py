"""What tests let go on beside them."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Server = TypeVar("Server", bound=socketserver.BaseServer)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """The server answers meanwhile."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def repeatedly(do: Callable[[int], object], every: float) -> Iterator[None]:
    """``do`` is called every so many seconds, with a number that counts from 1."""
    ended = threading.Event()

    def work() -> None:
        count = 0
        while not ended.wait(every):
            count += 1
            do(count)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
