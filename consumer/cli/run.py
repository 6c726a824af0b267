"""``stream-consumer run``: the daemon, its signals and its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from consumer.cli.failures import EX_INTERNAL, fail, one_line_errors, settings_or_exit

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.worker.app import Daemon


def _quit_early(signum: int, frame: FrameType | None) -> None:
    # Nothing is owned and nothing runs yet: ending at once is the graceful end. As PID 1 the kernel would otherwise
    # ignore the signal until a handler is installed.
    os._exit(0)


@click.command()
@click.option("--config", "-c", type=click.Path(path_type=Path), required=True, help="The YAML config file.")
def run(config: Path) -> None:
    """Run the daemon until SIGTERM or SIGINT. A second signal exits at once."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _quit_early)
    settings = settings_or_exit(config)
    import structlog

    from consumer.operate.logs import close_logging
    from consumer.worker.app import Daemon

    try:
        with one_line_errors():
            asyncio.run(_serve(Daemon(settings), settings.shutdown.grace))
    except Exception as error:  # noqa: BLE001 - any bug ends with 70: a restart may help; its stack is in the log
        structlog.get_logger().critical("daemon.crashed", exc_info=error, exit_code=EX_INTERNAL)
        close_logging()
        fail(f"internal error: {type(error).__name__}: {error}", EX_INTERNAL)
    finally:
        close_logging()
    with suppress(OSError, ValueError, AttributeError):  # what an inline handler printed; there may be no such file
        sys.stdout.flush()
    # Threads that user code left behind (a hung plain function) must not keep a finished daemon alive.
    os._exit(0)


async def _serve(daemon: Daemon, grace: float) -> None:
    from consumer.worker.app import arm_hard_stop

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        # A plain handler, not loop.add_signal_handler: it also runs while user code blocks the loop.
        if stopping:
            os._exit(128 + signum)
        stopping.append(signum)
        arm_hard_stop(grace)
        loop.call_soon_threadsafe(stop.set)

    stopping: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, on_signal)
    try:
        await daemon.run(stop)
    except BaseException:
        arm_hard_stop(grace)  # user code that ignores its cancellation must not keep a failed daemon alive
        raise
