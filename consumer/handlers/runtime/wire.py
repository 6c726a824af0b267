"""The wire between the daemon and a worker process: length-prefixed frames on a socket pair.

A frame is two big-endian lengths, a small JSON header and a raw body, so that events of megabytes are never escaped or
parsed twice. Sizes are checked before memory is taken: user code in the worker can reach the socket, and a wild write
must end as one failed call, not as an exhausted daemon. The daemon's side, and the headers as types, are in
``consumer/handlers/frames.py``.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

# Only Linux has it; elsewhere a suspended machine stops the clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
LENGTHS = struct.Struct(">II")
MAX_HEADER = 4 << 20
MAX_BODY = 256 << 20
# Lambda's own limit for a response.
MAX_RESPONSE = 6_291_556


class FrameError(ValueError):
    """The bytes are not a frame."""


def instant() -> float:
    """Seconds of a clock that all processes share, and that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


def head_of(header: bytes, body: bytes = b"") -> bytes:
    """Everything of a frame but its body (sent after it, uncopied). FrameError when it is too large to send."""
    if len(header) > MAX_HEADER or len(body) > MAX_BODY:
        raise FrameError(f"a frame of {len(header)} + {len(body)} bytes is larger than {MAX_BODY} bytes")
    return LENGTHS.pack(len(header), len(body)) + header


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytearray] | None:
    """The next frame on a blocking socket, its header decoded, its body as it was read into; None when the daemon
    closed it."""
    lengths = _exactly(sock, LENGTHS.size)
    if lengths is None:
        return None
    header_size, body_size = LENGTHS.unpack(lengths)
    if header_size > MAX_HEADER or body_size > MAX_BODY:
        raise FrameError(f"a frame announces {header_size} + {body_size} bytes")
    header = _exactly(sock, header_size)
    body = _exactly(sock, body_size)
    return None if header is None or body is None else (json.loads(header), body)


def send(sock: socket.socket, reply: dict[str, Any], body: bytes = b"") -> None:
    """Send one frame on a blocking socket."""
    sock.sendall(head_of(json.dumps(reply).encode(), body))
    if body:
        sock.sendall(body)


def _exactly(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return data
