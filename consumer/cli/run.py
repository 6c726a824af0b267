"""``stream-consumer run``: the daemon, its signals and its exit code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from consumer.cli import signals
from consumer.cli.failures import EX_INTERNAL, fail, one_line_errors, settings_or_exit
from consumer.cli.process_one import stand_before_the_daemon

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.worker.app import Daemon


@click.command()
@click.option("--config", "-c", type=click.Path(path_type=Path), required=True, help="The YAML config file.")
def run(config: Path) -> None:
    """Run the daemon until SIGTERM, SIGINT or SIGHUP, and drain. At a terminal a second Ctrl-C exits at once."""
    signals.quit_early()
    stand_before_the_daemon()
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
    import structlog

    from consumer.worker.app import arm_hard_stop

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    log = structlog.get_logger()

    def on_the_loop(callback: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # it is closed: everything was drained
            loop.call_soon_threadsafe(callback)

    def begin() -> None:
        arm_hard_stop(grace)
        on_the_loop(stop.set)

    def noted(name: str, effect: str) -> None:
        # A signal handler that logs could wait for a lock that its own thread holds.
        on_the_loop(lambda: log.info("signal.received", signal=name, effect=effect))

    signals.handle(begin, noted)
    try:
        await daemon.run(stop)
    except BaseException:
        arm_hard_stop(grace)  # user code that ignores its cancellation must not keep a failed daemon alive
        raise
