"""Faults that try the protocol itself: rows that are spoilt or come late, listings that leave out what is there.

Handlers cannot tell most of them from the faults of ``consumer.testing.faults``; they are drawn in the families of runs
that this project tries its own promises with.
"""

from __future__ import annotations

from functools import partial

from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow
from consumer.testing.faults import EVERYTHING, Nemesis
from consumer.testing.service_faults import MOST_STREAMS
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.worker.fleet.shard_listing import SECOND_LOOK
from consumer.worker.fleet.stream_replacement import FINISHED_FOR
from tests.simulation import mixed_settings

PROTOCOL = {
    **EVERYTHING,
    "keep_parents_open": 2,
    "stale_listing": 2,
    "blank_listing": 2,
    "lose_stream": 2,
    "forget_finished_shard": 2,
    "list_partly": 2,
    "delete_row_before_late_save": 2,
    "corrupt_row": 2,
    "days_pass": 1,
    "lose_replaced_stream": 1,
    "deploy": 2,
    "sleep_while_a_shard_ends": 2,
    "put_back_late": 2,
}


class ProtocolNemesis(Nemesis):
    """All faults of the package, and those of ``PROTOCOL``."""

    _listed_again = 0.0  # virtual time before which no listing may leave out shards once more

    def deploy(self) -> None:
        """All workers are replaced, one after the other, by ones with another configuration."""
        config, after = mixed_settings.draw(self._rng), 0.0
        for worker in self._world.workers.values():
            worker.configure(config)
            self._later(after, partial(self._replace, worker, self._up_to(0.5)))
            after += self._up_to(2.0)

    def _replace(self, worker: SimulatedWorker, seconds: float) -> None:
        worker.terminate()
        self._restart(worker, seconds)

    def _owned(self) -> tuple[LeaseRow, SimulatedWorker] | None:
        """The row of an unfinished shard, and the worker that runs and owns it, if there is one."""
        owners = {worker.incarnation: worker for worker in self._world.workers.values() if worker.running}
        rows = [row for row in self._world.rows().values() if row.owner in owners and not row.finished]
        row = self._rng.choice(rows) if rows else None
        return None if row is None else (row, owners[row.owner or ""])

    def delete_row_before_late_save(self) -> None:
        """A checkpoint takes so long that its sender has written another one, and its row was deleted and put back,
        when it arrives: it must change nothing."""
        world = self._world
        found = self._owned()
        if found is None:
            return
        row, worker = found
        late = worker.links["table"].hold_request("save", times=1)

        def delete() -> None:
            if row.shard_id in world.rows():
                world.delete_row(row.shard_id)

        deleted_after = self._rng.uniform(5.0, 40.0)
        self._later(deleted_after, delete)
        self._later(deleted_after + self._rng.uniform(1.0, 10.0), late.end)
        self._repairs.append(late.end)

    def put_back_late(self) -> None:
        """A row is deleted, and its owner dies while it puts it back. The request arrives when others have had the
        shard, and the row was deleted once more."""
        world = self._world
        found = self._owned()
        if found is None:
            return
        row, worker = found
        process, late = worker.process, worker.links["table"].hold_request("put_back")
        world.delete_row(row.shard_id)

        def die() -> None:
            if not late.taken or worker.process is not process:
                late.end()
                return
            worker.kill()
            self._restart(worker, self._up_to(1.0))
            self._later(self._rng.uniform(30.0, 150.0), arrive)

        def arrive() -> None:
            session = world.table.sessions.get(world.settings.application, {}).get(row.owner or "")
            if session is not None and not session.row.fenced:
                self._later(10.0, arrive)  # so far the row is still its own
                return
            if row.shard_id in world.rows():
                world.delete_row(row.shard_id)
            late.end()

        self._later(self._rng.uniform(0.5, 1.0) * self._duration, die)
        self._repairs.append(late.end)

    def corrupt_row(self) -> None:
        """The checkpoint of a lease row is spoilt by hand, and repaired later, if no owner has written over it."""
        world = self._world
        rows = [row for row in world.rows().values() if not row.finished and not row.corrupt]
        if not rows:
            return
        row = self._rng.choice(rows)
        world.edit_row(row.shard_id, frontier=FrontierSnapshot(), corrupt="low is not a sequence number: 'x'")

        def repair() -> None:
            now = world.rows().get(row.shard_id)
            if now is not None and now.corrupt:
                world.edit_row(row.shard_id, frontier=row.frontier, corrupt="")

        self._repairs.append(repair)
        self._later(self._up_to(4.0), repair)

    def sleep_while_a_shard_ends(self) -> None:
        """A machine is suspended. Meanwhile others finish a shard, which leaves the stream, and days later even its
        tombstone goes. Then the machine wakes up, and remembers the shard as it was."""
        world, worker = self._world, self._some_worker()
        if world.stream.dated or not self._reads_newest() or len(world.workers) < 2:
            return
        process, shard = worker.process, self._rng.choice(world.stream.open_shards())
        worker.pause()
        world.stream.roll(shard)

        def forget() -> None:
            rows = world.rows()
            if shard in rows and rows[shard].finished and world.everything_settled():
                if shard in world.stream.closed_shards():
                    world.vanish(shard)
                world.loop.pass_days(3.0)

        self._later(self._rng.uniform(60.0, 90.0), forget)
        self._later(self._rng.uniform(90.0, 300.0), lambda: worker.resume() if worker.process is process else None)

    def lose_replaced_stream(self) -> None:
        """A shard ends and the stream is replaced; for longer than that takes to look finished, the old one cannot be
        found, or its listing is empty."""
        old = self._world.stream
        if not self._reads_newest() or len(self._world.streams) >= MOST_STREAMS or old.missing or old.blank:
            return
        old.missing, old.blank = self._rng.choice(((True, False), (False, True)))
        self.roll()  # what is written now is in a child that no worker has seen
        self._later(self._rng.uniform(0.0, 15.0), self.enable_stream_again)
        self._set_later(self._rng.uniform(1.5, 3.0) * FINISHED_FOR, old, blank=False, missing=False)

    def keep_parents_open(self) -> None:
        """A child is listed while its parent still looks open: no last number, and pages go on without records."""
        stream = self._world.stream
        stream.keep_parents_open(self._rng.uniform(0.0, 60.0))
        getattr(self, self._rng.choice(("roll", "split")))()

    def stale_listing(self) -> None:
        """DescribeStream answers with what was true a while ago."""
        stream = self._world.stream
        stream.freeze_listing()
        self._later(self._up_to(2.0), lambda: stream.freeze_listing(frozen=False))

    def blank_listing(self) -> None:
        """DescribeStream succeeds and names no shard."""
        self._world.stream.blank = True
        self._set_later(self._up_to(2.0), self._world.stream, blank=False)

    def lose_stream(self) -> None:
        """For a while the service knows no such stream; its listing fails, or succeeds and is empty."""
        stream = self._world.stream
        stream.missing = True
        stream.blank = self._rng.random() < 0.5
        self._set_later(self._up_to(2.0), stream, blank=False, missing=False)

    def list_partly(self) -> None:
        """For a while the service knows nothing of some shards. Not for so long that an old one counts as gone: what
        complete listings leave out for ``SECOND_LOOK`` is gone, unless its id says that it is too young for that."""
        stream, now = self._world.stream, self._world.loop.now
        if now < self._listed_again:
            return
        seconds = self._up_to(2.0) if stream.dated else self._rng.uniform(0.0, 0.8 * SECOND_LOOK)
        self._listed_again = now + seconds + 2 * SECOND_LOOK
        shown = [shard.shard_id for shard in stream.listed()] if not stream.missing else []
        stream.omitted = frozenset(shard_id for shard_id in shown if self._rng.random() < 0.4)
        self._set_later(seconds, stream, omitted=frozenset())

    def days_pass(self) -> None:
        """Three days in which nothing happens, when all is settled; then tombstones are old enough to go."""
        if not self._world.stream.dated and self._world.everything_settled():
            self._world.loop.pass_days(3.0)

    def forget_finished_shard(self) -> None:
        """A shard leaves the stream, as it does 24 hours after its end; all of it was handled long before."""
        if self._world.stream.dated:
            return  # it is too young for that
        rows = self._world.rows()
        done = [shard for shard in self._world.stream.closed_shards() if shard in rows and rows[shard].finished]
        if done:
            self._world.vanish(done[0])
