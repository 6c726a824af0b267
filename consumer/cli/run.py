"""``stream-consumer run``: the daemon, its signals and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from consumer.cli import signals
from consumer.cli.completed import completed
from consumer.cli.config_file import config_options
from consumer.cli.failures import EX_CONFIG, EX_INTERNAL, EX_UNAVAILABLE, fail
from consumer.cli.process_one import stand_before_the_daemon
from consumer.domain.errors import PermissionDenied, StreamConsumerError, first_error
from consumer.domain.urls import redact_urls
from consumer.worker import gc_tuning

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings
    from consumer.worker.app import Daemon

_HINTS: Final = {
    EX_UNAVAILABLE: "a restart tries again",
    EX_INTERNAL: "a restart may help; if it does not, report it with this event",
    PermissionDenied.exit_code: "allow what is named, or use other credentials; a restart alone does not help",
    EX_CONFIG: "correct what is named; a restart alone does not help",
}


@click.command()
@config_options
def run(config: Path) -> None:
    """Run the daemon until SIGTERM or SIGINT, and drain. At a terminal a second Ctrl-C exits at once.

    SIGHUP reloads the configuration file, SIGUSR1 writes stacks and state to the log.
    """
    early = signals.quit_early()
    stand_before_the_daemon()
    gc_tuning.spare_the_start()
    file, environ = config.absolute(), dict(os.environ)  # user code in this process may change both
    settings = _settings_or_failed_start(config, environ)

    from consumer.operate.logs import close_logging
    from consumer.settings.load import load_settings
    from consumer.worker.app import Daemon

    daemon = Daemon(settings, lambda: load_settings(file, environ), str(file))
    try:
        completed(_serve(daemon, settings.shutdown.grace, early))
    except Exception as error:  # noqa: BLE001 - any bug ends with 70: a restart may help; its stack is in the log
        _failed(first_error(error) if isinstance(error, BaseExceptionGroup) else error, started=daemon.started)
    finally:
        close_logging()
    with suppress(OSError, ValueError, AttributeError):  # what an inline handler printed; there may be no such file
        sys.stdout.flush()
    # Threads that user code left behind (a hung plain function) must not keep a finished daemon alive.
    os._exit(0)


def _settings_or_failed_start(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of ``path``, or every problem on stderr and in the log, whose format is not known, and exit 78."""
    with _hidden("rich"):  # structlog would import it for a console that is not used here: 50 modules
        import structlog

    from consumer.operate.logs import close_logging, configure_logging
    from consumer.settings.errors import ConfigError
    from consumer.settings.load import load_settings

    try:
        return load_settings(path, environ)
    except ConfigError as error:
        configure_logging("info", "json")
        problems = [str(problem) for problem in error.problems]
        about = {"error": problems[0], "problems": problems, "exit_code": EX_CONFIG, "hint": _HINTS[EX_CONFIG]}
        structlog.get_logger().critical("daemon.start_failed", **about)
        close_logging()
        sys.stderr.write(f"{error}\n")
        sys.exit(EX_CONFIG)


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """A module that is not imported yet cannot be imported meanwhile."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # as documented: its import fails
    try:
        yield
    finally:
        del sys.modules[module]


def _failed(error: BaseException, *, started: bool) -> NoReturn:
    """Why the daemon ends, as an event and as a line on stderr, and its exit code."""
    import structlog

    from consumer.operate.logs import close_logging

    log = structlog.get_logger()
    text = redact_urls(" ".join(str(error).split()))
    bug = None if isinstance(error, StreamConsumerError) else error
    code = error.exit_code if isinstance(error, StreamConsumerError) else EX_INTERNAL
    if not started:
        log.critical("daemon.start_failed", error=text, exit_code=code, hint=_HINTS.get(code, ""), exc_info=bug)
    elif bug is None:
        log.critical("daemon.failed", error=text, exit_code=code, hint=_HINTS.get(code, ""))
    else:
        log.critical("daemon.crashed", exc_info=bug, exit_code=code)
    close_logging()
    fail(text if bug is None else f"internal error: {type(bug).__name__}: {bug}", code)


async def _serve(daemon: Daemon, grace: float, early: list[int]) -> None:
    import asyncio

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

    def reload() -> str:
        on_the_loop(daemon.reload)
        return "reload" if daemon.started else "reload, once the start is complete"

    def noted(name: str, effect: str) -> None:
        # A signal handler that logs could wait for a lock that its own thread holds.
        on_the_loop(lambda: log.info("signal.received", signal=name, effect=effect))

    with signals.tell() as arrived:
        signals.handle(begin, reload, noted, early)
        try:
            await daemon.run(stop, arrived)
        except BaseException:
            arm_hard_stop(grace)  # user code that ignores its cancellation must not keep a failed daemon alive
            raise
