"""What can happen to the lease table and to the stream: verbs of the nemesis (``faults.py``)."""

from __future__ import annotations

from consumer.testing.worker_faults import Verbs

MOST_OPEN_SHARDS = 8
MOST_STREAMS = 3


class TableFaults(Verbs):
    """Rows and tables that go or are spoilt."""

    def lose_session_row(self) -> None:
        for sessions in self._world.table.sessions.values():
            if sessions:
                del sessions[self._rng.choice(list(sessions))]

    def drop_table(self) -> None:
        """The lease table is gone for a while, and comes back with what it held."""
        self._world.table.exists = False
        self._set_later(self._up_to(1.0), self._world.table, exists=True)

    def wipe_table(self) -> None:
        """The lease table is deleted and made anew, empty. Not while the fleet drains an older stream: which one it
        reads is known to the table and to the processes only, and those may die, too."""
        if self._reads_newest():
            self._world.wipe_table()
            self._set_later(self._up_to(1.0), self._world.table, exists=True)

    def delete_row(self) -> None:
        """A lease row is deleted by hand; often one whose children wait for it, and must go on waiting."""
        rows = self._world.rows()
        parents = {parent for row in rows.values() if row.state == "waiting" for parent in row.parents}
        waited_for = sorted(parents & rows.keys())
        if waited_for and self._rng.random() < 0.7:
            self._world.delete_row(self._rng.choice(waited_for))
        elif rows:
            self._world.delete_row(self._rng.choice(list(rows)))


class StreamFaults(Verbs):
    """Lineage, listings, pages and retention."""

    def roll(self) -> None:
        stream = self._world.stream
        stream.roll(self._rng.choice(stream.open_shards()))

    def split(self) -> None:
        stream = self._world.stream
        shards = stream.open_shards()
        if len(shards) < MOST_OPEN_SHARDS:
            stream.split(self._rng.choice(shards))

    def enable_stream_again(self) -> None:
        """The table's stream is disabled and enabled again; the old one must be read to its end first."""
        if self._reads_newest() and len(self._world.streams) < MOST_STREAMS:
            self._world.enable_again(self._rng.randint(1, 3))

    def hide_children(self) -> None:
        """Children appear up to two minutes after their parent's end."""
        stream = self._world.stream
        stream.hide_children(self._rng.uniform(0.0, 120.0))
        stream.roll(self._rng.choice(stream.open_shards()))

    def expire_iterators(self) -> None:
        self._world.stream.expire_iterators()

    def empty_pages(self) -> None:
        stream = self._world.stream
        stream.empty_pages(self._rng.choice(stream.open_shards()), self._rng.randint(1, 10))

    def short_pages(self) -> None:
        """Pages are cut anywhere."""
        stream, usual = self._world.stream, self._world.streams[0].usual_page_records
        stream.page_records = self._rng.choice((1, 2, 5))
        stream.last_page = self._rng.choice(("with_records", "empty"))
        self._set_later(self._up_to(2.0), stream, page_records=usual)
