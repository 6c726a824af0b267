"""The control thread: its own event loop for the session renewal, the health server and the watchdog.

User code may block the main loop for seconds. Renewals, probes and metrics must go on meanwhile, and something must
notice when the main loop is wedged for good: then this thread stops renewing, logs all stacks and ends the process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from consumer.operate import sd_notify
from consumer.operate.logs import close_logging
from consumer.operate.status import StatusBoard

log = structlog.get_logger()

T = TypeVar("T")

TICK = 1.0  # seconds between looks at the main loop
STDERR = 2


class ControlThread:
    """A daemon thread with an event loop. ``start`` before use; ``stop`` cancels what runs there and joins it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._stopping = False

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            if not self._stopping:
                # No renewals, no probes and no watchdog any more, and nothing left that would notice.
                log.critical("task.died", task="control thread", exc_info=sys.exc_info()[1])
                die(70)
        self._loop.close()

    def start(self) -> None:
        self._thread.start()

    def spawn(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Future[T]:
        """Start ``work`` on the thread's loop; what is returned belongs to the loop of the caller. Cancelling it
        cancels the work."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def stop(self) -> None:
        """Cancel everything that still runs there, wait for it, and end the thread. Idempotent."""
        if not self._thread.is_alive():
            return
        await self.spawn(_cancel_others())
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, 5.0)


async def _cancel_others() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Watchdog:
    """Decides whether the main loop is wedged, for the session renewal, the status board and the process itself.

    It counts its own ticks without progress of the main loop instead of comparing times: a process that was frozen as a
    whole (SIGSTOP, a suspended machine) did not tick either, and is not wedged when it wakes up.
    """

    def __init__(self, progress: Callable[[], int], board: StatusBoard, wedged_after: float) -> None:
        """``progress`` is a number that the main loop keeps changing; ``wedged_after`` in seconds."""
        self._progress = progress
        self._board = board
        self._limit = max(2, int(wedged_after / TICK))
        self._seen = -1
        self._quiet = 0

    @property
    def wedged(self) -> bool:
        return self._quiet >= self._limit

    def tick(self) -> bool:
        """Look at the main loop, ``TICK`` seconds after the last look. True when the process must end: it was wedged at
        the last look already, so that a probe has had the time to see it."""
        was_wedged = self.wedged
        now = self._progress()
        self._quiet = 0 if now != self._seen else self._quiet + 1
        self._seen = now
        quiet = self._quiet * TICK
        self._board.progress_age = quiet
        self._board.wedged = (
            f"wedged: no progress for {quiet:.1f}s (limit {self._limit * TICK:g}s)" if self.wedged else ""
        )
        return was_wedged and self.wedged

    async def run(self) -> None:
        """Ends the process with exit code 70 when the main loop is wedged: a restart is the only cure, and a wedged
        worker must not keep its leases for ever."""
        while True:
            await asyncio.sleep(TICK)
            over = self.tick()
            if not self.wedged:
                # Sent from here, not from the main loop: user code may block that for longer than systemd's patience.
                sd_notify.watchdog()
            if over:
                log.critical("process.wedged", seconds=self._quiet * TICK, exit_code=70)
                die(70)


def die(code: int) -> None:
    """End the process now: flush the logs, print every thread's stack to standard error, and skip all clean-up.

    To the descriptor, because user code may have put something else in the place of ``sys.stderr``; and without waiting
    for a pipe that is not read, because faulthandler would keep the interpreter's lock meanwhile, for ever.
    """
    try:
        close_logging()
        with suppress(OSError):
            if not os.isatty(STDERR):  # a terminal is shared with the shell
                os.set_blocking(STDERR, False)
            faulthandler.dump_traceback(file=STDERR, all_threads=True)
    finally:
        os._exit(code)
