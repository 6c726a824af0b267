"""The daemon's side of one worker process: start it, give it one call at a time, know when it is dead."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from consumer.domain.errors import HandlerImportError, HandlerImportMayPass
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome, bad_response
from consumer.handlers.channel import Answer, MakeChannel
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


class WorkerProcess:
    """One process, used for many calls and never again once killed."""

    def __init__(
        self,
        make_channel: MakeChannel,
        environment: Mapping[str, str],
        reaper: OrphanReaper,
        *,
        report_failures: bool,
    ) -> None:
        self.calls = 0  # that it answered
        self.retired = False
        self._channel = make_channel(self)
        self._environment = environment
        self._report_failures = report_failures
        self._mark = reaper.mark()
        self._reaper = reaper
        self._process: asyncio.subprocess.Process | None = None
        self._outputs: list[Output] = []
        self._watch: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        # What prevented the start, or None.
        self._ready: asyncio.Future[HandlerImportError | None] = loop.create_future()
        self._answer: asyncio.Future[Answer | None] | None = None
        self._idle = asyncio.Event()
        self._busy_for: asyncio.TimerHandle | None = None
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
        name = self._channel.name
        try:
            async with asyncio.timeout(import_timeout):
                await self._spawn()
                problem = await self._ready
        except TimeoutError:
            problem = HandlerImportMayPass(
                f"{name}: its import did not end within {import_timeout:g} s (does it wait for something or run a "
                "server when it starts?)"
            )
        except OSError as error:
            problem = HandlerImportMayPass(f"{name}: no worker process can be started: {error}")
        except BaseException:
            await self._kill_and_wait("start cancelled")
            raise
        if problem is not None:
            await self._kill_and_wait("start failed")
            raise problem

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a call. A Lambda runtime may go on for a while after it has answered one."""
        return self._idle.is_set()

    async def wait_idle(self) -> None:
        """Wait until it waits for a call, or is gone."""
        await self._idle.wait()

    async def call(self, call: HandlerCall, event: bytes) -> Outcome:
        """Run one invocation within ``call.timeout`` seconds. Cancelling kills the process and waits for its death."""
        loop = asyncio.get_running_loop()
        if not self.usable:
            return Outcome("not_invoked", fault=crash_fault(call.request_id, self._returncode))
        started = loop.time()
        answer = self._answer = loop.create_future()
        for output in self._outputs:
            output.call = call
        refused = self._channel.hand_over(call, event)
        if refused is not None:
            self._answer = None
            return refused
        self._idle.clear()
        expiry = loop.call_later(call.timeout, self._expire)
        try:
            answered = await answer
        except asyncio.CancelledError:
            await self._kill_and_wait("call cancelled")
            raise
        finally:
            expiry.cancel()
            self._answer = None
        if not self._idle.is_set() and self.usable:  # on Lambda it would be frozen until the next call
            self._busy_for = loop.call_later(call.timeout, self.kill, f"it asked for no work for {call.timeout:g} s")
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
        with contextlib.ExitStack() as always:
            program = await self._channel.open()
            writers = []
            for stream in ("stdout", "stderr"):
                reading, writing = os.pipe()
                always.callback(os.close, writing)
                writers.append(writing)
                self._outputs.append(Output(reading, stream))
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *program.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=writers[0],
                    stderr=writers[1],
                    pass_fds=program.inherited,
                    cwd=program.folder,
                    env={**self._environment, **program.environment, MARK: self._mark},
                    # Its own process group, so that a Ctrl-C does not reach it and a kill reaches its children.
                    start_new_session=True,
                )
            except BaseException:
                for output in self._outputs:
                    output.close()
                await self._channel.close()
                raise
        self._reaper.add(self._process.pid)
        self._watch = asyncio.create_task(self._watch_exit(self._process), name=f"handler-worker-{self._process.pid}")
        await self._channel.connect(self._process.pid)

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
        if self._busy_for is not None:
            self._busy_for.cancel()
        for _ in range(2):  # let the loop deliver what the process said last
            await asyncio.sleep(0)
        await self._channel.close()
        for output in self._outputs:
            output.close()
        if not self._ready.done():
            how = exit_text(process.returncode or 0)
            ended = f"{self._channel.name}: the worker process ended during the import: {how}"
            self._ready.set_result(HandlerImportError(ended))
        self._idle.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _ask_to_end(self, reason: str) -> None:
        self._dying = self._dying or reason
        if not self._gone and not self._channel.ask_to_end():
            self._signal_group(signal.SIGTERM)

    def _kill_group(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._expired = True
            self.kill("timeout")

    # -- what the channel tells

    def on_ready(self, problem: HandlerImportError | None) -> None:
        if not self._ready.done():
            self._ready.set_result(problem)
        if problem is None:
            self._idle.set()

    def on_answer(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done() and not self._expired:
            for output in self._outputs:
                output.end_call()
            self.calls += 1
            self._answer.set_result(answer)

    def on_idle(self) -> None:
        if self._busy_for is not None:
            self._busy_for.cancel()
        self._idle.set()

    def on_broken(self, problem: str) -> None:
        log.error("handler.protocol_broken", pid=self.pid, problem=problem[:200])
        self.kill(f"it wrote garbage to the daemon's socket: {problem[:200]}")

    def _outcome(self, answered: Answer | None, call: HandlerCall, seconds: float) -> Outcome:
        if answered is None:
            if self._expired:
                fault = timeout_fault(call.request_id, call.timeout)
            elif self._dying == "closed":
                fault = HandlerFault("cancelled", "Cancelled", "the worker process was ended by a shutdown")
            else:
                fault = crash_fault(call.request_id, self._returncode, self._dying)
            return Outcome("failed", fault=fault, seconds=seconds)
        numbers = frozenset([record.sequence_number for record in call.records])
        if isinstance(answered, bytes):
            windowed = call.window is not None and call.window.asks_for_state
            outcome = lambda_outcome(answered, numbers, report_failures=self._report_failures, windowed=windowed)
        else:
            outcome = answered
        if not numbers.issuperset(outcome.failed):
            outcome = bad_response("the worker process named records that are not in the batch")
        return msgspec.structs.replace(outcome, seconds=seconds)
