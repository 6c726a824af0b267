"""The daemon's side of one worker process: start it, give it one call at a time, know when it is dead."""

from __future__ import annotations

import asyncio
import contextlib
import math
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.outcome import TOO_LATE, HandlerCall, HandlerFault, Outcome, bad_response
from consumer.handlers import frames
from consumer.handlers.environment import worker_command
from consumer.handlers.frames import Invocation, Reply, Setup
from consumer.handlers.handler_faults import crash_fault, exit_text, timeout_fault
from consumer.handlers.orphan_reaper import OrphanReaper
from consumer.handlers.orphan_reaper_main import MARK, kill_marked
from consumer.handlers.output import Output
from consumer.handlers.results import lambda_outcome

log = structlog.get_logger(__name__)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where that cannot be known (no ``/proc``, or it is gone)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return 0


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


class WorkerProcess:
    """One process, used for many calls and never again once killed."""

    def __init__(self, setup: Setup, environment: Mapping[str, str], reaper: OrphanReaper) -> None:
        self.calls = 0  # that it answered
        self.retired = False
        self._setup = setup
        self._environment = environment
        self._mark = reaper.mark()
        self._reaper = reaper
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._outputs: list[Output] = []
        self._watch: asyncio.Task[None] | None = None
        # What prevented the start, or None.
        self._ready: asyncio.Future[HandlerImportError | None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[tuple[Reply, bytes] | None] | None = None
        self._serial = 0
        self._dying = ""  # why it was killed
        self._expired = False
        self._gone = False

    @property
    def usable(self) -> bool:
        """Whether a call may be given to it: alive as far as is known, and not killed."""
        return not self._gone and not self._dying

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def ending(self) -> str:
        """Why it is gone, in words."""
        return self._dying or exit_text(self._returncode or 0)

    async def start(self, import_timeout: float) -> None:
        """Start the process and import the target. HandlerImportError; the process is gone then."""
        target = self._setup.target
        try:
            async with asyncio.timeout(import_timeout):
                await self._spawn()
                problem = await self._ready
        except TimeoutError:
            problem = HandlerImportMayPass(
                f"handler.target {target!r}: its import did not end within {import_timeout:g} s (does the module "
                "wait for something or run a server when it is imported?)"
            )
        except OSError as error:
            problem = HandlerImportMayPass(f"handler.target {target!r}: no worker process can be started: {error}")
        except BaseException:
            await self._kill_and_wait("start cancelled")
            raise
        if problem is not None:
            await self._kill_and_wait("start failed")
            raise problem

    async def call(self, call: HandlerCall, event: bytes) -> Outcome:
        """Run one invocation within ``call.timeout`` seconds. Cancelling kills the process and waits for its death."""
        loop = asyncio.get_running_loop()
        transport = self._transport
        if transport is None or not self.usable:
            return Outcome("not_invoked", fault=crash_fault(call.request_id, self._returncode))
        self._serial += 1
        started = loop.time()
        startable = call.may_start_for()
        if startable <= 0:
            return TOO_LATE
        invocation = Invocation(
            serial=self._serial,
            request_id=call.request_id,
            attempt=call.attempt,
            application=call.application,
            shard_id=call.shard_id,
            lease_epoch=call.lease_epoch,
            deadline=time.monotonic() + call.timeout,
            source_arn=call.source_arn,
            start_by=None if startable == math.inf else frames.instant() + startable,
        )
        try:
            head = frames.head_of(invocation, event)
        except frames.FrameError as error:
            return Outcome("failed", fault=HandlerFault("raised", "RequestTooLarge", str(error)))
        answer = self._answer = loop.create_future()
        for output in self._outputs:
            output.call = call
        expiry = loop.call_later(call.timeout, self._expire)
        try:
            transport.writelines((head, event))
            answered = await answer
        except asyncio.CancelledError:
            await self._kill_and_wait("call cancelled")
            raise
        finally:
            expiry.cancel()
            self._answer = None
        return self._outcome(answered, call, loop.time() - started)

    def kill(self, reason: str) -> None:
        """SIGKILL for the whole process group, whose end ``wait_gone`` awaits. A process that is gone already keeps
        its own end as the reason."""
        if self._gone:
            return
        self._dying = self._dying or reason
        self._kill_group()

    async def wait_gone(self) -> None:
        """Wait until the process is dead and cleaned up."""
        if self._watch is not None:
            await asyncio.wait({self._watch})

    def retire(self, reason: str, grace: float) -> None:
        """Between two calls: give it no further one, ask for an orderly end, and kill after ``grace`` seconds."""
        self.retired = True
        self._ask_to_end(reason)
        asyncio.get_running_loop().call_later(grace, self.kill, reason)

    async def end(self, grace: float) -> None:
        """Ask for an orderly end (after the call in progress), kill after ``grace`` seconds."""
        self._ask_to_end("closed")
        # Before the first call there is nothing to finish, and an import may hang.
        if self._watch is not None and self._ready.done():
            await asyncio.wait({self._watch}, timeout=grace)
        await self._kill_and_wait("closed")

    # -- inside

    @property
    def _returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def _spawn(self) -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with contextlib.ExitStack() as until_started, contextlib.ExitStack() as always:
            until_started.callback(near.close)
            always.callback(far.close)
            writers = []
            for stream in ("stdout", "stderr"):
                reading, writing = os.pipe()
                always.callback(os.close, writing)
                writers.append(writing)
                output = Output(reading, stream)
                self._outputs.append(output)
                until_started.callback(output.close)
            self._process = await asyncio.create_subprocess_exec(
                *worker_command(far.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writers[0],
                stderr=writers[1],
                pass_fds=(far.fileno(),),
                env={**self._environment, MARK: self._mark},
                # Its own process group, so that a Ctrl-C does not reach it and a kill reaches its children.
                start_new_session=True,
            )
            until_started.pop_all()
        # User code is imported only after the set-up frame, so nothing of it runs before the reaper knows the group.
        self._reaper.add(self._process.pid)
        self._watch = asyncio.create_task(self._watch_exit(self._process), name=f"handler-worker-{self._process.pid}")
        near.setblocking(False)
        wire = _Wire(self._on_reply, self._on_broken)
        self._transport, _ = await loop.create_unix_connection(lambda: wire, sock=near)
        self._transport.write(frames.head_of(self._setup))

    async def _kill_and_wait(self, reason: str) -> None:
        """Kill and wait for the death, also when cancelled meanwhile: nothing may run when the caller goes on."""
        self.kill(reason)
        interrupted = False
        while self._watch is not None and not self._watch.done():
            try:
                await asyncio.wait({self._watch})
            except asyncio.CancelledError:
                interrupted = True
        if interrupted:
            raise asyncio.CancelledError

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        # The group outlives its leader while any member lives, so this number cannot be another group's yet.
        self._kill_group()
        # And whoever left the group, or the session. Looking for them takes milliseconds, of another thread.
        try:
            await asyncio.to_thread(kill_marked, self._mark)
        except RuntimeError:  # no thread can be started
            kill_marked(self._mark)
        self._reaper.remove(process.pid)
        self._gone = True
        for _ in range(2):  # let the loop deliver what the process said last
            await asyncio.sleep(0)
        if self._transport is not None:
            self._transport.abort()
        for output in self._outputs:
            output.close()
        if not self._ready.done():
            target, how = self._setup.target, exit_text(process.returncode or 0)
            ended = f"handler.target {target!r}: the worker process ended during the import: {how}"
            self._ready.set_result(HandlerImportError(ended))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _ask_to_end(self, reason: str) -> None:
        self._dying = self._dying or reason
        if self._transport is not None and not self._gone:
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()

    def _kill_group(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._expired = True
            self.kill("timeout")

    def _on_reply(self, reply: Reply, body: bytes) -> None:
        if reply.kind in ("ready", "import_failed"):
            if not self._ready.done():
                kind = HandlerImportMayPass if reply.may_pass else HandlerImportError
                self._ready.set_result(None if reply.kind == "ready" else kind(reply.message))
        elif reply.serial != self._serial:
            self._on_broken(f"an answer to call {reply.serial} during call {self._serial}")
        elif self._answer is not None and not self._answer.done() and not self._expired:
            for output in self._outputs:
                output.end_call()
            self.calls += 1
            self._answer.set_result((reply, body))

    def _on_broken(self, problem: str) -> None:
        log.error("handler.protocol_broken", pid=self.pid, problem=problem[:200])
        self.kill(f"it wrote garbage to the daemon's socket: {problem[:200]}")

    def _outcome(self, answered: tuple[Reply, bytes] | None, call: HandlerCall, seconds: float) -> Outcome:
        if answered is None:
            if self._expired:
                fault = timeout_fault(call.request_id, call.timeout)
            elif self._dying == "closed":
                fault = HandlerFault("cancelled", "Cancelled", "the worker process was ended by a shutdown")
            else:
                fault = crash_fault(call.request_id, self._returncode, self._dying)
            return Outcome("failed", fault=fault, seconds=seconds)
        reply, body = answered
        numbers = frozenset([record.sequence_number for record in call.records])
        if reply.kind == "returned":
            windowed = call.window is not None and call.window.asks_for_state
            outcome = lambda_outcome(body, numbers, report_failures=self._setup.report_failures, windowed=windowed)
        else:
            outcome = reply.outcome or bad_response("the worker process sent no outcome")
        if not numbers.issuperset(outcome.failed):
            outcome = bad_response("the worker process named records that are not in the batch")
        return msgspec.structs.replace(outcome, seconds=seconds)
