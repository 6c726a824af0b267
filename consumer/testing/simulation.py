"""A whole fleet in one process, in virtual time, from one seed.

``Simulation`` is the world: a stream, a lease table, dead letters, workers and what happens to them. A scenario is an
``async`` function that drives it; ``run`` runs it to its end and returns the history. Everything that is not decided by
the scenario is drawn from the seed.

    async def scenario(world: Simulation) -> None:
        for name in ("a", "b"):
            world.add_worker(name, handler).start()
        for number in range(100):
            world.put(f"key-{number % 7}")
        await world.until(world.everything_settled, 60.0)

    history = Simulation(seed=7, shards=2).run(scenario)
    assert not history.violations
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

from consumer.domain.lease import LeaseRow
from consumer.ports.handler import Handler
from consumer.settings.model import Settings
from consumer.testing.checkers import Checkers
from consumer.testing.history import History
from consumer.testing.memory_dead_letters import MemoryDeadLetters
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.network import Link
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.virtual_loop import VirtualLoop
from consumer.worker.fleet.stream_replacement import FINISHED_FOR
from consumer.worker.memory_budget import BYTES_PER_WIRE_BYTE

APPLICATION = "simulated"
CHECK_EVERY = 0.25  # virtual seconds between looks at a condition
SHARDS_PER_PAGE = 100  # of DescribeStream
SHOWN_ROWS = 4  # when a wait fails


class BrokenPromise(AssertionError):
    """A simulation saw a violation. ``history`` has them all; the same seed shows them again."""

    def __init__(self, seed: int | str, history: History) -> None:
        shown = "\n".join(f"  {violation}" for violation in history.violations[:5])
        super().__init__(f"seed {seed!r}: {len(history.violations)} violations\n{shown}")
        self.history = history


class ServiceClock:
    """The clock of AWS."""

    def __init__(self, simulation: Simulation) -> None:
        self._loop = simulation.loop
        self._world = simulation.loop.world

    def monotonic(self) -> float:
        return self._loop.now

    def wall(self) -> float:
        return self._world.wall()


class Simulation:
    """One run.

    Args:
        seed: decides everything that the scenario does not.
        shards: open shards of the stream at the start.
        config: sections of the configuration file, merged over quick defaults.
        on_event: is given a line for everything that happens, log events of the workers included.
        stream: more arguments of ``MemoryStream``.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        shards: int = 1,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        on_event: Callable[[str], None] | None = None,
        stream: Mapping[str, Any] | None = None,
    ) -> None:
        self.seed = seed
        self.settings = _settings(config or {})
        self.loop = VirtualLoop(self.rng("schedule"))
        self.clock = ServiceClock(self)
        self.streams = [MemoryStream(self.clock, shards=shards, **(stream or {}))]
        self.table = MemoryTable()
        self.dead_letters = MemoryDeadLetters()
        self.history = History(lambda: self.loop.now, on_event)
        exact = self.settings.idempotency.mode != "off"
        self.checkers = Checkers(self.history, self.streams, exact=exact)
        self._gaps_before: set[str] = set()
        self.table.on_write = self.checkers.written
        self.table.on_register = self.checkers.registered
        self.table.on_remove = self.checkers.removed
        self.workers: dict[str, SimulatedWorker] = {}
        self.calls: dict[str, int] = defaultdict(int)
        self._versions: dict[str, int] = defaultdict(int)
        self.scenario: Callable[[Simulation], Awaitable[None]] = _nothing

    def rng(self, purpose: str) -> random.Random:
        """Randomness of its own for every purpose, so that one more draw here changes nothing there."""
        return random.Random(f"{self.seed}/{purpose}")  # noqa: S311

    @property
    def stream(self) -> MemoryStream:
        """The stream of the table, the newest one."""
        return self.streams[-1]

    # --- what a scenario does ----------------------------------------------------------------------------

    def add_worker(self, name: str, handler: Handler) -> SimulatedWorker:
        """A place in the fleet; ``start`` it."""
        worker = self.workers[name] = SimulatedWorker(self, name, handler)
        return worker

    def put(self, key: str, **attributes: Any) -> str:
        """Write an item with the partition key ``key``: one more record. ``v`` counts its versions from 1."""
        version = self._versions[_text(key)] + 1
        number = self.write({self.stream.partition_key: key, "v": version, **attributes})
        if number is None:
            raise AssertionError("a new version is always a change")
        return number

    def write(self, item: Mapping[str, Any]) -> str | None:
        """Write an item of Python values; None when nothing changes, which makes no record."""
        return self._changed(item, self.stream.put)

    def delete(self, key: Mapping[str, Any]) -> str | None:
        """Delete an item; None when there is none."""
        return self._changed(key, self.stream.delete)

    def _changed(self, item: Mapping[str, Any], change: Callable[[Mapping[str, Any]], str | None]) -> str | None:
        shard_id = self.stream.shard_of(item[self.stream.partition_key])
        number = change(item)
        if number is not None:
            name = ", ".join(_text(item[part]) for part in self.stream.key_names)
            self._versions[name] += 1
            self.checkers.produced(number, name, self._versions[name], shard_id)
        return number

    def trim(self, shard_id: str, upto: str | None = None) -> None:
        """The service drops records, read or not."""
        self._home(shard_id).trim(shard_id, upto)
        self.checkers.trimmed(shard_id, None if upto is None else int(upto))

    def vanish(self, shard_id: str) -> None:
        """The service forgets a closed shard with whatever is in it."""
        self._home(shard_id).vanish(shard_id)
        self.checkers.trimmed(shard_id)

    def enable_again(self, shards: int = 1) -> None:
        """The stream is disabled; the table gets a new one, with a new ARN, for all further writes. Children of the old
        one that are still hidden are shown within ``FINISHED_FOR``: nobody can wait for what may come at any time."""
        old = self.stream
        self.loop.after(0.9 * FINISHED_FOR, old.hide_children, 0.0)
        label = f"2026-01-{len(self.streams) + 1:02}T00:00:00.000"
        self.streams.append(self.stream.enable_again(label, shards=shards))
        self.history.note("stream enabled again", label)

    def wipe_table(self) -> None:
        """The lease table is deleted with all its rows; ``table.exists`` says when it is made anew."""
        self._gaps_before |= self.gaps_recorded()
        for shard_id in self.rows():
            self.checkers.deleted(shard_id)
        self.table.drop_rows()
        self.table.exists = False

    def delete_row(self, shard_id: str) -> None:
        """Somebody deletes a lease row behind everybody's back."""
        self.table.drop_lease(APPLICATION, self._home(shard_id).label, shard_id)
        self.checkers.deleted(shard_id)

    def _home(self, shard_id: str) -> MemoryStream:
        return next(stream for stream in self.streams if stream.knows(shard_id))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def edit_row(self, shard_id: str, **changes: Any) -> None:
        """Somebody edits a lease row behind everybody's back."""
        self.table.edit(APPLICATION, self._home(shard_id).label, shard_id, **changes)
        self.checkers.corrupted(self.rows()[shard_id])

    async def until(self, condition: Callable[[], bool], seconds: float, what: str = "") -> bool:
        """Wait in virtual time. False, and a violation of liveness that shows the state of the fleet, when it does not
        come true within ``seconds``."""
        deadline = self.loop.now + seconds
        while not condition():
            if self.loop.now >= deadline:
                name = what or getattr(condition, "__name__", "it")
                self.history.violated("liveness", f"{name} did not happen within {seconds:g} s: {self.summary()}")
                return False
            await asyncio.sleep(CHECK_EVERY)
        return True

    # --- what a scenario asks ----------------------------------------------------------------------------

    def summary(self) -> str:
        """One line: which workers run, what is left, and the rows of unfinished shards."""
        workers = [worker.incarnation or f"{worker.name} (no session)" for worker in self.workers.values()]
        rows = [
            f"{row.shard_id} {row.state} at {row.frontier.low}, owner {row.owner}, epoch {row.epoch}"
            for row in self.rows().values()
            if not row.finished
        ]
        shown = "; ".join(rows[:SHOWN_ROWS]) + (f"; {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else "")
        return f"{self.checkers.left} records left; workers {', '.join(workers) or 'none'}; leases {shown or 'none'}"

    def rows(self) -> dict[str, LeaseRow]:
        """The lease rows as the table holds them, those of streams before this one included."""
        return {shard_id: row for stream in self.streams for shard_id, row in self._rows_of(stream).items()}

    def _rows_of(self, stream: MemoryStream) -> dict[str, LeaseRow]:
        held = self.table.leases.get((APPLICATION, stream.label), {})
        return {shard_id: lease.row for shard_id, lease in held.items()}

    def owned(self) -> dict[str, int]:
        """Leases that are not finished, by incarnation; workers that own nothing count 0."""
        counts = {worker.incarnation: 0 for worker in self.workers.values() if worker.incarnation}
        for row in self._rows_of(self.stream).values():
            if row.owner is not None and not row.finished:
                counts[row.owner] = counts.get(row.owner, 0) + 1
        return counts

    def everything_settled(self) -> bool:
        """Every record of the stream is handled, dead-lettered or lost with its trace."""
        return not self.checkers.left

    def balanced(self) -> bool:
        """Every unfinished lease has a live owner, and no worker has two more than another."""
        live = {worker.incarnation for worker in self.workers.values() if worker.running}
        if not live or "" in live:
            return False
        counts = self.owned()
        rows = self._rows_of(self.stream)
        owners = {row.owner for row in rows.values() if not row.finished}
        shown = {shard.shard_id for shard in self.stream.listed()}
        missing = shown - rows.keys()
        return owners <= live and not missing and max(counts.values()) - min(counts.values()) <= 1

    def closed_shards_done(self) -> bool:
        """Every shard with a visible child is finished."""
        rows, shown = self._rows_of(self.stream), {shard.shard_id: shard for shard in self.stream.listed()}
        known = shown.keys() | rows.keys()  # the rows may have been wiped, and not all of them be back
        parents = {parent for shard in shown.values() for parent in shard.parents if parent in known}
        return all(parent in rows and rows[parent].finished for parent in parents)

    def gaps_recorded(self) -> set[str]:
        """Shards with a durable trace of records that nobody read."""
        labels = [(APPLICATION, stream.label) for stream in self.streams]
        losses = [loss for label in labels for loss in self.table.losses.get(label, {}).values()]
        return self._gaps_before | {loss.shard_id for loss in losses if loss.kind == "gap"}

    # --- running -----------------------------------------------------------------------------------------

    def run(self, scenario: Callable[[Simulation], Awaitable[None]]) -> History:
        """Run ``scenario`` to its end, then end every process as by a kill. Returns the history."""

        async def body() -> None:
            try:
                await scenario(self)
            except Exception as error:
                for violation in self.history.violations[:5]:  # often why the scenario found what it did not expect
                    error.add_note(str(violation))
                raise
            finally:
                for failure in self.loop.failures:
                    self.history.violated("no bug", failure)
                self.history.sealed = True

        gc_was_on = gc.isenabled()
        gc.disable()  # collections at arbitrary moments cost a third of the time and could run finalizers
        try:
            with _logs_to(self.history):
                self.loop.run_until(body())
        finally:
            self.loop.close()
            if gc_was_on:
                gc.enable()
        return self.history

    async def finish(self) -> None:
        """Stop all workers gracefully, then judge what must hold in the end."""
        for worker in list(self.workers.values()):
            if worker.running:
                context = worker.context
                await worker.stop()
                if context is not None and context.budget.used and not worker.killed:
                    self.history.violated("byte budget", f"{worker.name} ends with {context.budget.used} bytes held")
        self.checkers.at_the_end(self.gaps_recorded())

    def check(self) -> None:
        """Raise BrokenPromise if anything was violated."""
        if self.history.violations:
            raise BrokenPromise(self.seed, self.history)

    def called(self, link: Link, operation: str, outcome: str) -> None:
        """Every call that reaches a service comes by here."""
        self.calls[operation] += 1
        self.history.note("call", link.sender, link.service, operation, outcome)
        if operation == "get_records":
            self._check_budget(link.sender)
        if operation in ("list_shards", "child_shards", "describe"):
            self.checkers.described(self._pages() if (operation, outcome) == ("list_shards", "list") else 1)

    def _pages(self) -> int:
        """Calls that a complete listing takes: the largest stream decides."""
        most = max(len(stream.open_shards()) + len(stream.closed_shards()) for stream in self.streams)
        return max(1, -(-most // SHARDS_PER_PAGE))

    def _check_budget(self, process: str) -> None:
        """``limits.buffer``, and beyond it at most one page a reader, and what was copied out of that page."""
        worker = self.workers.get(process.partition("#")[0])
        if worker is None or worker.context is None or worker.coordinator is None:
            return
        page = int(max(stream.largest_page for stream in self.streams) * BYTES_PER_WIRE_BYTE)
        most = self.settings.limits.buffer + 2 * page * len(list(worker.coordinator.workers))
        if worker.context.budget.used > most:
            self.history.violated("byte budget", f"{process} holds {worker.context.budget.used} bytes, not {most}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


async def _nothing(_: Simulation) -> None:
    """The scenario of a world that was given none."""


def _settings(config: Mapping[str, Mapping[str, Any]]) -> Settings:
    base: dict[str, dict[str, Any]] = {
        "source": {"table": "orders", "on_gap": "continue", "poll": {"idle_backoff_max": "5s"}},
        "handler": {"kind": "python", "isolation": "inline", "target": "simulated:handler"},
        "leases": {"duration": "10s"},
        "on_failure": {"destination": "arn:aws:sqs:us-east-1:000000000000:dead-letters"},
    }
    for section, values in config.items():
        base[section] = base.get(section, {}) | dict(values)
    return Settings.model_validate({"application": APPLICATION, **base})


@contextmanager
def _logs_to(history: History) -> Iterator[None]:
    """Log events of the workers: all of them into the trace when there is one; bugs of ours are violations always."""

    def collect(_: Any, method: str, event: MutableMapping[str, Any]) -> str:
        if history.sealed:
            raise structlog.DropEvent
        name = event.pop("event", "")
        error = event.pop("exc_info", None)
        if name in ("shard.worker_failed", "task.died"):
            found = sys.exc_info()[1] if error is True else error
            history.violated("no bug", f"{name}: {found!r}")
        if history.on_event is not None:
            history.on_event(f"{history.now():.9f}   log {method} {name} {event}")
        raise structlog.DropEvent

    before = structlog.get_config()
    level = 0 if history.on_event is not None else 40
    structlog.configure(
        processors=[collect],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)
