"""Accepts connections, also when the process has no file descriptor left for one.

asyncio's own server stops accepting for a second when descriptors run out, and logs an error for every connection that
waits; a probe that comes then is not answered, and the process that could have said what is wrong is killed. Here a few
descriptors are kept in reserve for that moment, and what is wrong is said once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

RESERVE: Final = 4  # descriptors: probes and a scrape that come at the same time
WAITING: Final = 4096  # connections that the kernel may keep until they are accepted; it takes less if it must
AT_ONCE: Final = 4  # connections accepted before others get their turn: who was just accepted is heard before it is old
SILENCE: Final = 60.0  # seconds between two complaints
PAUSE: Final = 0.1  # seconds without accepting when not even the reserve helps
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BROKEN: Final = {errno.EBADF, errno.ENOTSOCK, errno.EINVAL}
_NOT_HERE: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Listener:
    """Listens on every address of a host, from ``open`` until ``close``.

    ``protocol`` makes one for a connection; ``make_room`` ends a connection, for when not even the reserve helps.
    """

    def __init__(self, protocol: Callable[[], asyncio.Protocol], make_room: Callable[[], None]) -> None:
        self._protocol = protocol
        self._make_room = make_room
        self._sockets: list[socket.socket] = []
        self._reserve: list[int] = []
        self._opening: set[asyncio.Task[object]] = set()
        self._silent_until = 0.0  # of the loop's clock

    async def open(self, host: str, port: int) -> None:
        """Bind and listen. OSError, OverflowError or UnicodeError when that is not possible; nothing is left open."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing: OSError | None = None  # of a host with several addresses, those that this machine has are enough
        try:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                try:
                    self._sockets.append(_bound(socket.socket(family, kind, protocol), address))
                except OSError as error:
                    if error.errno not in _NOT_HERE:
                        raise
                    missing = error
            if missing is not None and not self._sockets:
                raise missing
        except BaseException:
            self.close()
            raise
        self.refill()
        for listening in self._sockets:
            loop.add_reader(listening.fileno(), self._accept_some, listening)

    @property
    def is_open(self) -> bool:
        """Whether it listens."""
        return bool(self._sockets) and all(listening.fileno() >= 0 for listening in self._sockets)

    @property
    def port(self) -> int | None:
        """The bound port; None when it does not listen."""
        return int(self._sockets[0].getsockname()[1]) if self.is_open else None

    def close(self) -> None:
        """Stop listening. Idempotent; connections stay."""
        for listening in self._sockets:
            if listening.fileno() >= 0:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    asyncio.get_running_loop().remove_reader(listening.fileno())
                listening.close()
        self._sockets.clear()
        while self._reserve:
            os.close(self._reserve.pop())

    def refill(self) -> None:
        """Fill the reserve again, as far as there are descriptors: to be called when a connection has ended."""
        if not self._sockets:
            return
        with contextlib.suppress(OSError):
            while len(self._reserve) < RESERVE:
                self._reserve.append(os.open(os.devnull, os.O_RDONLY))

    def _accept_some(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._accept(listening)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _BROKEN:
                    self.close()  # somebody closed the descriptor: whoever looks after us sees that we do not listen
                    return
                if error.errno in _EXHAUSTED:
                    self._make_room()
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening.fileno())
                loop.call_later(PAUSE, self._go_on, listening)
                return
            connection.setblocking(False)
            opening = asyncio.ensure_future(
                asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
            )
            self._opening.add(opening)
            opening.add_done_callback(self._opened)

    def _accept(self, listening: socket.socket) -> tuple[socket.socket, object]:
        """Another thread may be faster to take the descriptor that is set free; then the next one is tried."""
        while True:
            try:
                return listening.accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._say(error)
                if not self._reserve:
                    raise
                os.close(self._reserve.pop())

    def _say(self, error: OSError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE
            log.error("http.descriptors_exhausted", error=os.strerror(error.errno or 0), reserve=len(self._reserve))

    def _go_on(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            self.refill()
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept_some, listening)

    def _opened(self, opening: asyncio.Task[object]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # seen: the client has gone already


def _bound(listening: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(WAITING)
    except BaseException:
        listening.close()
        raise
    return listening
