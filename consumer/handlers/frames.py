"""The wire between the daemon and a worker process: length-prefixed frames on a socket pair.

A frame is two big-endian lengths, a small JSON header (a struct below) and a raw body, so that events of megabytes
are never escaped or parsed twice. Sizes are checked before memory is taken: user code in the worker can reach the
socket, and a wild write must end as one failed call, not as an exhausted daemon.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from consumer.domain.outcome import Outcome

# Only Linux has it; elsewhere a suspended machine stops the clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_LENGTHS = struct.Struct(">II")
MAX_HEADER = 4 << 20
MAX_BODY = 256 << 20
# Lambda's own limit for a response.
MAX_RESPONSE = 6_291_556


class FrameError(ValueError):
    """The bytes are not a frame."""


class Setup(msgspec.Struct):
    """The first frame to a worker: what to import."""

    kind: Literal["lambda", "python"]
    target: str
    path: str | None
    report_failures: bool


class Invocation(msgspec.Struct):
    """One call; the body is the event. ``deadline`` is a ``time.monotonic()`` instant, ``start_by`` one of ``instant``
    (None: no limit), after which user code must not start any more. All processes of a host share both."""

    serial: int
    request_id: str
    attempt: int
    application: str
    shard_id: str
    lease_epoch: int
    deadline: float
    source_arn: str
    start_by: float | None = None


class Reply(msgspec.Struct, omit_defaults=True):
    """From a worker. ``returned``: the body is the JSON a Lambda function returned; ``ended``: see ``outcome``."""

    kind: Literal["ready", "import_failed", "returned", "ended"]
    serial: int = 0
    message: str = ""
    may_pass: bool = False  # of a failed import
    outcome: Outcome | None = None


def instant() -> float:
    """Seconds of a clock that all processes share, and that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


decode_setup = msgspec.json.Decoder(Setup).decode
decode_invocation = msgspec.json.Decoder(Invocation).decode
decode_reply = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.Encoder().encode


def head_of(message: Setup | Invocation | Reply, body: bytes = b"") -> bytes:
    """Everything of a frame but its body (sent after it, uncopied). FrameError when it is too large to send."""
    header = _encode(message)
    if len(header) > MAX_HEADER or len(body) > MAX_BODY:
        raise FrameError(f"a frame of {len(header)} + {len(body)} bytes is larger than {MAX_BODY} bytes")
    return _LENGTHS.pack(len(header), len(body)) + header


class Splitter:
    """Puts the frames of a byte stream together again (the daemon's side, which may never block)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that ``data`` completes, as (header, body). FrameError on sizes that no frame has."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(buffer)
            if header > MAX_HEADER or body > MAX_BODY:
                raise FrameError(f"a frame announces {header} + {body} bytes")
            start = _LENGTHS.size + header
            end = start + body
            if len(buffer) < end:
                return
            yield bytes(buffer[_LENGTHS.size : start]), bytes(buffer[start:end])
            del buffer[:end]


def _exactly(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return bytes(data)


def receive(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """The next frame on a blocking socket (the worker's side); None when the daemon closed it."""
    lengths = _exactly(sock, _LENGTHS.size)
    if lengths is None:
        return None
    header_size, body_size = _LENGTHS.unpack(lengths)
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise FrameError(f"a frame announces {header_size} + {body_size} bytes")
    header = _exactly(sock, header_size)
    body = _exactly(sock, body_size)
    return None if header is None or body is None else (header, body)


def send(sock: socket.socket, message: Reply, body: bytes = b"") -> None:
    """Send one frame on a blocking socket (the worker's side)."""
    sock.sendall(head_of(message, body))
    if body:
        sock.sendall(body)
