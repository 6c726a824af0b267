"""One program that the daemon started: its output, its process group, its end, and whatever it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

from consumer.domain.outcome import HandlerCall
from consumer.handlers.channel import Program
from consumer.handlers.orphan_reaper import OrphanReaper
from consumer.handlers.orphan_reaper_main import MARK, kill_marked
from consumer.handlers.output import Output


class StartedProgram:
    """``when_gone`` is awaited once it has ended and nothing of it is left."""

    def __init__(self, reaper: OrphanReaper, when_gone: Callable[[], Awaitable[None]]) -> None:
        self.gone = False
        self._reaper = reaper
        self._when_gone = when_gone
        self._mark = reaper.mark()
        self._process: asyncio.subprocess.Process | None = None
        self._outputs: list[Output] = []
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def start(self, program: Program, environment: Mapping[str, str]) -> int:
        """Returns its pid. OSError."""
        with contextlib.ExitStack() as until_started, contextlib.ExitStack() as always:
            writers = []
            for stream in ("stdout", "stderr"):
                reading, writing = os.pipe()
                always.callback(os.close, writing)
                writers.append(writing)
                output = Output(reading, stream)
                self._outputs.append(output)
                until_started.callback(output.close)
            self._process = await asyncio.create_subprocess_exec(
                *program.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writers[0],
                stderr=writers[1],
                pass_fds=program.inherited,
                cwd=program.folder,
                env={**environment, **program.environment, MARK: self._mark},
                # Its own process group, so that a Ctrl-C does not reach it and a kill reaches its children.
                start_new_session=True,
            )
            until_started.pop_all()
        self._reaper.add(self._process.pid)
        self._watch = asyncio.create_task(self._watch_exit(self._process), name=f"handler-worker-{self._process.pid}")
        return self._process.pid

    def begin_call(self, call: HandlerCall) -> None:
        """What it prints from now on belongs to this call."""
        for output in self._outputs:
            output.call = call

    def end_call(self) -> None:
        """What it has printed so far belongs to the call in progress, which is over."""
        for output in self._outputs:
            output.end_call()

    def signal(self, number: signal.Signals) -> None:
        """To its whole process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    async def wait_gone(self, seconds: float | None = None) -> bool:
        """Wait until it is dead and cleaned up, or was never started. False after so many ``seconds``."""
        if self._watch is None:
            return True
        await asyncio.wait({self._watch}, timeout=seconds)
        return self._watch.done()

    async def _watch_exit(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        # The group outlives its leader while any member lives, so this number cannot be another group's yet.
        self.signal(signal.SIGKILL)
        # And whoever left the group, or the session. Looking for them takes milliseconds, of another thread.
        try:
            await asyncio.to_thread(kill_marked, self._mark)
        except RuntimeError:  # no thread can be started
            kill_marked(self._mark)
        self._reaper.remove(process.pid)
        self.gone = True
        for _ in range(2):  # let the loop deliver what the process said last
            await asyncio.sleep(0)
        for output in self._outputs:
            output.close()
        await self._when_gone()
