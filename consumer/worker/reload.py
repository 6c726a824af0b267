"""Takes what may change of the configuration file into the running daemon, all or nothing.

The file is read and checked as at the start. One with mistakes, or one that changes a key that needs a restart, changes
nothing at all: a daemon that runs with half of a file would run with a configuration that nobody has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from consumer.domain.errors import StreamConsumerError
from consumer.operate.logs import write_event
from consumer.operate.metrics import Metrics
from consumer.settings.errors import ConfigError
from consumer.settings.model import Settings
from consumer.settings.reload import Change, changes
from consumer.worker.tasks import beside

log = structlog.get_logger()

MOST_PROBLEMS = 20  # in one event


class Reload:
    """``ask`` for it at any time, also again while it goes on; ``run`` carries it out.

    ``reread`` gives the settings of the file (in a thread: it may be on a disk that hangs) and raises ConfigError.
    ``current`` are those that count, whatever became of the last reload. ``apply`` takes over settings that may be
    taken over, or raises StreamConsumerError and has changed nothing.
    """

    def __init__(
        self,
        reread: Callable[[], Settings],
        current: Callable[[], Settings],
        apply: Callable[[Settings], None],
        metrics: Metrics,
    ) -> None:
        self._reread = reread
        self._current = current
        self._apply = apply
        self._metrics = metrics

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever ``asked`` is set, for ever."""
        while True:
            await asked.wait()
            asked.clear()
            await self.reload()

    async def reload(self) -> None:
        """Reload once. Raises nothing but cancellation: whatever is wrong with a file, the daemon goes on."""
        try:
            found = await beside("configuration", self._reread)
            changed = changes(self._current(), found)
            needs_restart = [change.key for change in changed if change.needs_restart]
            if needs_restart:
                self._refused("these keys cannot change while the daemon runs", needs_restart=needs_restart)
                return
            if changed:
                self._apply(found)
        except ConfigError as error:
            problems = [str(problem) for problem in error.problems]
            self._refused("the file has mistakes", problems=problems[:MOST_PROBLEMS], count=len(problems))
        except (StreamConsumerError, OSError) as error:
            self._refused(str(error))
        except Exception as error:  # noqa: BLE001 - a bug in reading a file must not end a daemon that works
            self._refused("a bug", exc_info=error)
        else:
            self._metrics.config_reloaded(successful=True)
            write_event("config.reloaded", changed={change.key: _shown(change) for change in changed})

    def _refused(self, reason: str, **about: object) -> None:
        self._metrics.config_reloaded(successful=False)
        effect = "the daemon goes on with the configuration it has"
        log.error("config.reload_refused", reason=reason, effect=effect, **about)


def _shown(change: Change) -> dict[str, object]:
    return {"old": change.old, "new": change.new}
