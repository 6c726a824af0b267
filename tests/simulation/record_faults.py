"""Faults that cost records or dead letters, for the family of runs that has many of both."""

from __future__ import annotations

from consumer.testing.network import Weather
from tests.simulation.protocol_faults import PROTOCOL, ProtocolNemesis

RECORDS = {
    **PROTOCOL,
    "trim_unread": 1,
    "vanish_unread": 1,
    "replace_without_dead_letters": 3,
    "lose_lease_without_dead_letters": 3,
}

WEATHER = {"answer_strangely": 6, "set_clock_wrong": 4, "jump_clock_for_seconds": 4}


class RecordNemesis(ProtocolNemesis):
    """All faults, and records that go unread and destinations that refuse at the wrong moment."""

    def replace_without_dead_letters(self) -> None:
        """The destination refuses for a while, then SIGTERM comes: what could not be dead-lettered stays unsettled."""
        worker = self._some_worker()
        self._set(worker, ("dead_letters",), Weather(throttle=1.0), 4 * self._duration)
        process = worker.process

        def terminate() -> None:
            if worker.process is process:
                worker.terminate()
                self._restart(worker, self._duration)

        self._later(self._up_to(2.0), terminate)

    def lose_lease_without_dead_letters(self) -> None:
        """The destination refuses for a while; meanwhile the worker cannot renew, and its peers take its shards."""
        worker = self._some_worker()
        self._set(worker, ("session",), Weather(lose_request=1.0), 3 * self._duration)
        self._set(worker, ("dead_letters",), Weather(throttle=1.0), self._rng.uniform(1.5, 2.5) * self._duration)

    def vanish_unread(self) -> None:
        """A closed shard leaves the stream before all of it was settled."""
        rows = self._world.rows()
        for shard_id in self._world.stream.closed_shards() if not self._world.stream.dated else ():
            if shard_id in rows and not rows[shard_id].settled:
                self._world.vanish(shard_id)
                return

    def trim_unread(self) -> None:
        """Records are trimmed before they are settled."""
        rows = self._world.rows()
        for item in self._world.checkers.oldest_open():
            row = rows.get(item.shard_id)
            # What is trimmed before the first read of a shard leaves no trace: it cannot be known that it was there.
            if row is not None and row.frontier.first is not None:
                self._world.trim(item.shard_id, str(item.number))
                return
