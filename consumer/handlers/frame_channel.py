"""The channel to the runtime of this package (``runtime/main.py``): frames on a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Callable

from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome, bad_response
from consumer.handlers import frames
from consumer.handlers.channel import Listener, Program
from consumer.handlers.environment import worker_command
from consumer.handlers.frames import Invocation, Reply, Setup
from consumer.handlers.handler_faults import import_error
from consumer.handlers.runtime import wire

_READ = 64 * 1024  # bytes at a time
# Bytes that the socket takes before the process reads: the event of nearly every batch, so that it is sent in one call
# and the process wakes up once for it. The system may give less (Linux: net.core.wmem_max); then the rest follows.
_UNREAD = 1 << 20
_LAST_READS = 64


class _Wire(asyncio.Protocol):
    """Frames in; a broken one is reported once."""

    def __init__(self, on_reply: Callable[[Reply, bytes], None], on_broken: Callable[[str], None]) -> None:
        self._splitter = frames.Splitter()
        self._on_reply = on_reply
        self._on_broken = on_broken

    def data_received(self, data: bytes) -> None:
        try:
            for header, body in self._splitter.feed(data):
                self._on_reply(frames.decode_reply(header), body)
        except ValueError as error:  # FrameError and msgspec.DecodeError: user code wrote to the socket
            self._on_broken(str(error))

    def eof_received(self) -> bool:
        # The end of the process counts, not that of the connection: half-open until then.
        return True


class FrameChannel:
    """``channel.Channel`` for the built-in ``lambda`` and ``python`` kinds, in the interpreter ``python`` or in the
    daemon's own (None)."""

    def __init__(self, setup: Setup, python: str | None, listener: Listener) -> None:
        self._setup = setup
        self._python = python
        self._listener = listener
        self._ends: list[socket.socket] = []
        self._wire = _Wire(self._on_reply, listener.on_broken)
        self._unsent = b""
        self._transport: asyncio.Transport | None = None
        self._serial = 0

    @property
    def name(self) -> str:
        return f"handler.target {self._setup.target!r}"

    async def open(self) -> Program:
        near, far = self._ends = list(socket.socketpair())
        near.setblocking(False)
        with contextlib.suppress(OSError):  # the system's own size does, too
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNREAD)
        # Before the process is there: one that refuses to be the runtime has answered and ended in no time, and a
        # transport whose write fails drops what it has not read.
        head = frames.head_of(self._setup)
        self._unsent = head[near.send(head) :]
        return Program(worker_command(self._python, far.fileno()), inherited=(far.fileno(),))

    async def connect(self, pid: int) -> None:
        """The process is imported into only after the set-up frame, so nothing of user code runs before."""
        near, far = self._ends
        far.close()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(lambda: self._wire, sock=near)
        if self._unsent:
            self._transport.write(self._unsent)

    def hand_over(self, call: HandlerCall, event: bytes) -> Outcome | None:
        startable = call.may_start_for()
        if startable <= 0 or self._transport is None:
            return TOO_LATE
        self._serial += 1
        invocation = Invocation(
            serial=self._serial,
            request_id=call.request_id,
            attempt=call.attempt,
            application=call.application,
            shard_id=call.shard_id,
            lease_epoch=call.lease_epoch,
            deadline=time.monotonic() + call.timeout,
            source_arn=call.source_arn,
            start_by=None if startable == math.inf else wire.instant() + startable,
            redrive=call.redrive,
        )
        try:
            head = frames.head_of(invocation, event)
        except wire.FrameError as error:
            return Outcome("failed", fault=HandlerFault("raised", "RequestTooLarge", str(error)))
        if not self._send(self._transport, head, event):
            gone = HandlerFault("crashed", "ProcessGone", "the worker process ended before the call was sent to it")
            return Outcome("not_invoked", fault=gone)
        return None

    def ask_to_end(self) -> bool:
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
        return True

    async def close(self) -> None:
        if self._transport is not None:
            if not self._transport.is_closing():
                self._read_the_rest(self._ends[0])
            self._transport.abort()
        for end in self._ends:
            end.close()

    def _send(self, transport: asyncio.Transport, head: bytes, event: bytes) -> bool:
        """Both at once and uncopied: ``writelines`` joins them first (before Python 3.12), and after a ``write`` of one
        the process wakes up for the head and has to wait for the event. False when nobody is there to read: the news of
        the end of a process may come later than the next call."""
        if transport.is_closing():
            return False
        sent = 0
        if not transport.get_write_buffer_size():
            try:
                sent = self._ends[0].sendmsg((head, event))
            except (BrokenPipeError, ConnectionResetError):
                return False
            except OSError:
                sent = 0  # it is full
        if sent < len(head):
            transport.write(head[sent:])
        rest = memoryview(event)[max(0, sent - len(head)) :]
        if rest:
            transport.write(rest)
        return True

    def _read_the_rest(self, near: socket.socket) -> None:
        """The news of the end of a process may come before its last words."""
        with contextlib.suppress(OSError):
            for _ in range(_LAST_READS):  # more than a socket holds; children of the process may write on
                data = near.recv(_READ)
                if not data:
                    break
                self._wire.data_received(data)

    def _on_reply(self, reply: Reply, body: bytes) -> None:
        if reply.kind == "ready":
            self._listener.on_ready(None)
        elif reply.kind == "import_failed":
            self._listener.on_ready(import_error(reply.message, may_pass=reply.may_pass))
        elif reply.serial != self._serial:
            self._listener.on_broken(f"an answer to call {reply.serial} during call {self._serial}")
        else:
            self._listener.on_idle()
            self._listener.on_answer(body if reply.kind == "returned" else _outcome(reply))


def _outcome(reply: Reply) -> Outcome:
    if reply.kind == "too_late":
        return TOO_LATE
    if reply.kind == "raised" and reply.fault is not None:
        return Outcome("failed", fault=HandlerFault("raised", *reply.fault))
    return reply.outcome or bad_response("the worker process sent no outcome")
