"""``stream-consumer top``: the fleet live in the terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from consumer.cli.completed import answer_of
from consumer.cli.config_file import config_options
from consumer.cli.durations import seconds_option
from consumer.cli.failures import EX_USAGE, fail, settings_or_exit

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from rich.console import Group

    from consumer.cli.reach import Reach
    from consumer.cli.top_frames import Frames
    from consumer.cli.worker_status import WorkerStatus
    from consumer.settings.model import Settings

_LEAST: Final = 1.0  # seconds between two looks: each reads all rows
_FRAME_LINES: Final = 8  # of a screen that are not shards, beside the workers
_MOST_ONCE: Final = 100  # shards of a single frame that nobody scrolls


@click.command("top")
@config_options
@click.option("--worker", "workers", multiple=True, metavar="HOST:PORT", help="Ask this worker, too; may be repeated.")
@click.option("--once", is_flag=True, help="One look, and no screen of its own.")
@seconds_option("--interval", default="2s", least=_LEAST, help="Between two looks. Default 2s, least 1s.")
def top(config: Path, workers: tuple[str, ...], once: bool, interval: float) -> None:
    """Show the fleet: workers and whether they are alive, shards with what is wrong first; until Ctrl-C.

    Leases, sessions and parked keys come from the lease table: each look reads all rows of the application. Lag,
    records in flight and rates are known to the owners alone: they come from the workers named with --worker (their
    http.port), or, without any, from the one of this config on this machine. A session that does not move between two
    looks is silent for so long; longer than its leases.duration, it is dead.
    """
    settings = settings_or_exit(config)
    addresses = _addresses(settings, workers)
    good_end = () if once else (KeyboardInterrupt,)
    with suppress(*good_end):
        answer_of(_shown(settings, addresses, None if once else interval))


def _addresses(settings: Settings, workers: Sequence[str]) -> list[tuple[str, int]]:
    from consumer.cli.health import parse_address

    found = [parse_address(text, "--worker") for text in workers]
    if not found and settings.http.port:
        found.append(parse_address(f"{_bracketed(settings.http.host)}:{settings.http.port}", "http"))
    return found


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _shown(settings: Settings, addresses: Sequence[tuple[str, int]], interval: float | None) -> None:
    import asyncio

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from consumer.cli import reach
    from consumer.cli.top_frames import Frames
    from consumer.domain.errors import DependencyError

    console, frames = Console(), Frames()
    if interval is not None and (not console.is_terminal or console.is_dumb_terminal):
        fail(
            "standard output is no terminal, or a dumb one: use --once, or `leases list` and `lag` for scripts",
            EX_USAGE,
        )
    async with reach.reached(settings) as there:
        if interval is None:
            wide = Console(width=None if console.is_terminal else 1000)
            wide.print(await _frame(there, frames, addresses, _MOST_ONCE))
            return
        # Ended by a signal it must give the terminal back, too.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit, 128 + signal.SIGTERM)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    live.update(await _frame(there, frames, addresses, _room(len(addresses))), refresh=True)
                except DependencyError as error:
                    live.update(Text(f"{error}: looking again in {interval:g} s", style="red"), refresh=True)
                await there.sleep(interval)


def _room(workers: int) -> int:
    return max(5, os.get_terminal_size().lines - _FRAME_LINES - workers)


async def _frame(there: Reach, frames: Frames, addresses: Sequence[tuple[str, int]], most: int) -> Group:
    import asyncio

    from rich.console import Group
    from rich.text import Text

    from consumer.cli.fleet_reading import fleet_rows
    from consumer.cli.output import grid

    fleet, reached = await asyncio.gather(fleet_rows(there), _asked(addresses, there.settings.application))
    now, wall = there.clock.monotonic(), there.clock.wall()
    shards, more = frames.shards(fleet, reached, wall, most)
    end = f"and {more} more: `stream-consumer leases list`" if more else ""
    return Group(
        Text(frames.headline(fleet, reached, wall), style="bold"),
        Text(),
        grid(frames.workers(fleet, reached, now), shrink=True),
        Text(),
        grid(shards, shrink=True),
        Text(end),
    )


async def _asked(addresses: Sequence[tuple[str, int]], application: str) -> list[WorkerStatus]:
    import asyncio

    from consumer.cli.worker_status import worker_status

    return list(
        await asyncio.gather(*(asyncio.to_thread(worker_status, host, port, application) for host, port in addresses))
    )
