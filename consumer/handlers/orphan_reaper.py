"""The daemon's side of the orphan reaper (see ``orphan_reaper_main``): starts it and names the groups that live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from itertools import count
from pathlib import Path

import structlog

_SCRIPT = str(Path(__file__).with_name("orphan_reaper_main.py"))
log = structlog.get_logger(__name__)


class OrphanReaper:
    """One per pool. A reaper that died (the OOM killer takes anything) is replaced, and the new one gets all groups.

    A reaper that cannot be started is a warning, not an error: on Linux the workers still die with the daemon.
    """

    def __init__(self) -> None:
        self._family = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._members = count()
        self._groups: set[int] = set()
        self._pipe: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the reaper and the task that replaces it."""
        await self._spawn()
        self._supervision = asyncio.create_task(self._supervise(), name="orphan-reaper")

    async def close(self) -> None:
        """End the reaper: it kills what is still registered and exits. Idempotent."""
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
            self._supervision = None
        self._close_pipe()
        process, self._process = self._process, None
        if process is not None:
            await process.wait()

    def mark(self) -> str:
        """A value for the variable ``MARK`` of one worker process: what that starts inherits it, and dies with it."""
        return f"{self._family}/{next(self._members)}/"

    def add(self, group: int) -> None:
        """From now on ``group`` dies with the daemon."""
        self._groups.add(group)
        self._send(b"+%d\n" % group)

    def remove(self, group: int) -> None:
        """``group`` is gone; its number may soon be that of another group."""
        self._groups.discard(group)
        self._send(b"-%d\n" % group)

    def _send(self, line: bytes) -> None:
        if self._pipe is not None:
            # A reaper that died is replaced by ``_supervise``, which sends all groups to the new one.
            with contextlib.suppress(OSError):
                os.write(self._pipe, line)

    async def _spawn(self) -> None:
        self._close_pipe()
        reading, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        for group in self._groups:  # before the new reaper runs, so that it knows them whenever the daemon dies
            self._send(b"+%d\n" % group)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                _SCRIPT,
                f"{self._family}/",
                stdin=reading,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            log.warning("handler.guard_failed", error=str(error))
        finally:
            os.close(reading)

    async def _supervise(self) -> None:
        delay = 0.0
        while True:
            if self._process is not None:
                code = await self._process.wait()
                self._process = None
                log.warning("handler.guard_ended", exit_status=code)
            await asyncio.sleep(delay)
            delay = min(30.0, delay * 2 or 0.5)
            await self._spawn()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
