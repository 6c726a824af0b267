"""The daemon's side of one worker process: start it, give it one call at a time, know when it is dead."""

from __future__ import annotations

import asyncio
import mmap
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
from consumer.handlers.results import lambda_outcome
from consumer.handlers.started_program import StartedProgram

log = structlog.get_logger(__name__)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where that cannot be known (no ``/proc``, or it is gone)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return 0


class WorkerProcess:
    """One process, used for many calls and never again once killed. It hears of it by its channel, as whose
    ``Listener`` it has the methods ``on_...``."""

    def __init__(
        self,
        make_channel: MakeChannel,
        environment: Mapping[str, str],
        reaper: OrphanReaper,
        *,
        report_failures: bool | None,
    ) -> None:
        self.calls = 0  # that it answered
        self.retired = False
        self._channel = make_channel(self)
        self._environment = environment
        self._report_failures = report_failures
        self._program = StartedProgram(reaper, self._when_gone)
        # What prevented the start, or None.
        self._ready: asyncio.Future[HandlerImportError | None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[Answer | None] | None = None
        self.idle = asyncio.Event()  # it waits for a call, or is gone; a runtime may go on after it has answered one
        self._busy_for: asyncio.TimerHandle | None = None
        self._dying = ""  # why it was killed
        self._has_ended = False  # it did not take a call, but the news of its end is not here yet
        self._expired = False

    @property
    def usable(self) -> bool:
        """Whether a call may be given to it: alive as far as is known, and not killed."""
        return not (self._program.gone or self._dying or self._has_ended)

    @property
    def pid(self) -> int | None:
        return self._program.pid

    @property
    def ending(self) -> str:
        """Why it is gone, in words."""
        return self._dying or exit_text(self._program.returncode or 0)

    async def start(self, import_timeout: float) -> None:
        """Start the process and import the target. HandlerImportError; the process is gone then."""
        name = self._channel.name
        try:
            async with asyncio.timeout(import_timeout):
                program = await self._channel.open()
                await self._channel.connect(await self._program.start(program, self._environment))
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

    async def call(self, call: HandlerCall, event: bytes) -> Outcome:
        """Run one invocation within ``call.timeout`` seconds. Cancelling kills the process and waits for its death."""
        loop = asyncio.get_running_loop()
        if not self.usable:
            return Outcome("not_invoked", fault=crash_fault(call.request_id, self._program.returncode))
        started = loop.time()
        answer = self._answer = loop.create_future()
        self._program.begin_call(call)
        refused = self._channel.hand_over(call, event)
        if refused is not None:
            self._answer = None
            if refused.fault is not None and refused.fault.kind == "crashed":
                self._has_ended = True
                self._program.signal(signal.SIGKILL)  # should it live on, deaf, it would keep its place for ever
            return refused
        self.idle.clear()
        expiry = loop.call_later(call.timeout, self._expire)
        try:
            answered = await answer
        except asyncio.CancelledError:
            await self._kill_and_wait("call cancelled")
            raise
        finally:
            expiry.cancel()
            self._answer = None
        if not self.idle.is_set() and self.usable:  # on Lambda it would be frozen until the next call
            self._busy_for = loop.call_later(call.timeout, self.kill, f"it asked for no work for {call.timeout:g} s")
        if answered is None:
            outcome = Outcome("failed", fault=self._fault(call))
        else:
            outcome = _outcome(answered, call, report_failures=self._report_failures)
        body = answered if isinstance(answered, bytes) else None
        return msgspec.structs.replace(outcome, seconds=loop.time() - started, answer=body)

    def kill(self, reason: str) -> None:
        """SIGKILL for the whole process group, whose end ``wait_gone`` awaits. A process that is gone already keeps
        its own end as the reason."""
        if self._program.gone:
            return
        self._dying = self._dying or reason
        self._program.signal(signal.SIGKILL)

    async def wait_gone(self) -> None:
        """Wait until the process is dead and cleaned up."""
        await self._program.wait_gone()

    def retire(self, reason: str, grace: float) -> None:
        """Between two calls: give it no further one, ask for an orderly end, and kill after ``grace`` seconds."""
        self.retired = True
        self._ask_to_end(reason)
        asyncio.get_running_loop().call_later(grace, self.kill, reason)

    async def end(self, grace: float) -> None:
        """Ask for an orderly end (after the call in progress), kill after ``grace`` seconds."""
        self._ask_to_end("closed")
        # Before the first call there is nothing to finish, and an import may hang.
        if self._ready.done():
            await self._program.wait_gone(grace)
        await self._kill_and_wait("closed")

    # -- inside

    async def _kill_and_wait(self, reason: str) -> None:
        """Kill and wait for the death, also when cancelled meanwhile: nothing may run when the caller goes on."""
        self.kill(reason)
        interrupted = False
        while True:
            try:
                if await self._program.wait_gone():
                    break
            except asyncio.CancelledError:
                interrupted = True
        if self.pid is None:  # it was never started
            await self._when_gone()
        if interrupted:
            raise asyncio.CancelledError

    async def _when_gone(self) -> None:
        if self._busy_for is not None:
            self._busy_for.cancel()
        await self._channel.close()
        if not self._ready.done():
            how = exit_text(self._program.returncode or 0)
            ended = f"{self._channel.name}: the worker process ended during the import: {how}"
            self._ready.set_result(HandlerImportError(ended))
        self.idle.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def _ask_to_end(self, reason: str) -> None:
        self._dying = self._dying or reason
        if not self._program.gone and not self._channel.ask_to_end():
            self._program.signal(signal.SIGTERM)

    def _expire(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._expired = True
            self.kill("timeout")

    def _fault(self, call: HandlerCall) -> HandlerFault:
        """Why the call under way got no answer."""
        if self._expired:
            return timeout_fault(call.request_id, call.timeout)
        if self._dying == "closed":
            return HandlerFault("cancelled", "Cancelled", "the worker process was ended by a shutdown")
        return crash_fault(call.request_id, self._program.returncode, self._dying)

    # -- what the channel tells

    def on_ready(self, problem: HandlerImportError | None) -> None:
        if not self._ready.done():
            self._ready.set_result(problem)
        if problem is None:
            self.idle.set()

    def on_answer(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done() and not self._expired:
            self._program.end_call()
            self.calls += 1
            self._answer.set_result(answer)

    def on_idle(self) -> None:
        if self._busy_for is not None:
            self._busy_for.cancel()
        self.idle.set()

    def on_broken(self, problem: str) -> None:
        log.error("handler.protocol_broken", pid=self.pid, problem=problem[:200])
        self.kill(f"it wrote garbage to the daemon's socket: {problem[:200]}")


def _outcome(answered: Answer, call: HandlerCall, *, report_failures: bool | None) -> Outcome:
    numbers = frozenset([record.sequence_number for record in call.records])
    if isinstance(answered, bytes):
        windowed = call.window is not None and call.window.asks_for_state
        outcome = lambda_outcome(answered, numbers, report_failures=report_failures, windowed=windowed)
    else:
        outcome = answered
    if not numbers.issuperset(outcome.failed):
        return bad_response("the worker process named records that are not in the batch")
    return outcome
