"""The daemon's side of the wire to a worker process (``runtime/wire.py``): what it sends and what it hears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from consumer.domain.outcome import Outcome
from consumer.handlers.runtime import wire
from consumer.handlers.runtime.wire import LENGTHS, MAX_BODY, MAX_HEADER, FrameError


class Setup(msgspec.Struct):
    """The first frame to a worker: what to import."""

    kind: Literal["lambda", "python"]
    target: str
    path: str | None
    report_failures: bool  # of the python kind; of a Lambda function the daemon reads the answer


class Invocation(msgspec.Struct):
    """One call; the body is the event. ``deadline`` is a ``time.monotonic()`` instant, ``start_by`` one of
    ``wire.instant`` (None: no limit), after which user code must not start any more. All processes of a host share
    both."""

    serial: int
    request_id: str
    attempt: int
    application: str
    shard_id: str
    lease_epoch: int
    deadline: float
    source_arn: str
    start_by: float | None = None
    redrive: bool = False


class Reply(msgspec.Struct):
    """From a worker. ``returned``: the body is the JSON that a Lambda function returned; ``raised``: so did user code,
    ``fault`` is type, message and stack; ``too_late``: it did not start; ``ended``: see ``outcome``."""

    kind: Literal["ready", "import_failed", "returned", "raised", "too_late", "ended"]
    serial: int = 0
    message: str = ""
    may_pass: bool = False  # of a failed import
    fault: tuple[str, str, tuple[str, ...]] | None = None
    outcome: Outcome | None = None


decode_reply = msgspec.json.Decoder(Reply).decode
_encode = msgspec.json.Encoder().encode


def head_of(message: Setup | Invocation, body: bytes = b"") -> bytes:
    """Everything of a frame but its body (sent after it, uncopied). FrameError when it is too large to send."""
    return wire.head_of(_encode(message), body)


class Splitter:
    """Puts the frames of a byte stream together again (the daemon's side, which may never block)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that ``data`` completes, as (header, body). FrameError on sizes that no frame has."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTHS.size:
            header, body = LENGTHS.unpack_from(buffer)
            if header > MAX_HEADER or body > MAX_BODY:
                raise FrameError(f"a frame announces {header} + {body} bytes")
            start = LENGTHS.size + header
            end = start + body
            if len(buffer) < end:
                return
            yield bytes(buffer[LENGTHS.size : start]), bytes(buffer[start:end])
            del buffer[:end]
