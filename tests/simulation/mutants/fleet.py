"""Mistakes in leases, sessions, the plan, the shard graph, and how one stream follows another."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

FLEET = (
    Mutant(
        "the validity is stamped at the answer",
        "consumer/worker/fleet/session_renewal.py",
        "                    self._validity.renewed(sent_at, self._duration)",
        "                    self._validity.renewed(self._clock.monotonic(), self._duration)",
        ("G3 one owner",),
    ),
    Mutant(
        "leases are taken without a fence",
        "consumer/worker/fleet/membership.py",
        "if session is None or await self._store.fence_session(incarnation, session.counter):",
        "if True:",
        ("G3 one owner",),
    ),
    Mutant(
        "observers wait half a lease only",
        "consumer/domain/lease.py",
        "TAKE_MARGIN = 1.1",
        "TAKE_MARGIN = 0.5",
        ("G3 one owner",),
    ),
    Mutant(
        "an observer waits its own duration",
        "consumer/domain/lease.py",
        "return duration_of(incarnation) or self._default",
        "return self._default",
        ("G3 one owner", "G5 duplicates"),
    ),
    Mutant(
        "memory has no age",
        "consumer/domain/remembered.py",
        "is_old, self._read_at = self.has_slept, asked_at",
        "is_old, self._read_at = False, asked_at",
        ("G4 fenced",),
    ),
    Mutant(
        "what the service does not name comes back from an old memory",
        "consumer/domain/remembered.py",
        "            if asked_at - old.unlisted_since >= patience(shard_id):\n"
        "                forgotten.append(self._old.pop(shard_id).row)\n",
        "            del self._old[shard_id]\n"
        "            self.rows[shard_id], self._missing[shard_id] = old.row, old.since\n",
        ("G4 fenced",),
    ),
    Mutant(
        "an epoch from memory is one more than what is remembered",
        "consumer/domain/lease.py",
        "return max(seen + 1, int(service_time) * EPOCHS_PER_SECOND + salt * OWNERS_PER_SECOND)",
        "return seen + 1",
        ("G4 fenced", "G3 one owner"),
    ),
    Mutant(
        "observers count from long before their reading",
        "consumer/worker/fleet/membership.py",
        "self._observer.observe(self.sessions, owners, self._read_at)",
        "self._observer.observe(self.sessions, owners, self._read_at - 5.0)",
        ("G3 one owner",),
    ),
    Mutant(
        "the validity never ends",
        "consumer/domain/lease.py",
        "return not self.fenced and now < self.valid_until",
        "return not self.fenced",
        ("G3 one owner",),
    ),
    Mutant(
        "ownership is checked before the reservation",
        "consumer/worker/shard/handler_calls.py",
        """        reserved = await (self._in_line(again=again) if places.are_limited else places.reserve(again=again))
        if reserved is None:
            return None
        may_call = False
        try:
            # After all waiting and right before the call, with no await in between: a worker that was frozen, or waited
            # for a process, while its lease was taken, starts nothing any more.
            owns = self._validity.holds(self._clock.monotonic()) or await self.still_owns()
            may_call = owns and not self._draining.is_set()
""",
        """        may_call = await self.still_owns() and not self._draining.is_set()
        reserved = await (self._in_line(again=again) if places.are_limited else places.reserve(again=again))
        if reserved is None:
            return None
        try:
            pass
""",
        ("G3 one owner",),
    ),
    Mutant(
        "a lease given away is started again from what was read before",
        "consumer/worker/fleet/shard_supervisor.py",
        "if shard_id in self._tasks or shard_id in self._outdated or now",
        "if shard_id in self._tasks or now",
        ("G3 one owner", "G4 fenced"),
        family="records",
    ),
    Mutant(
        "latest is resolved again by every process",
        "consumer/worker/fleet/registration.py",
        "        await asyncio.sleep(PAUSE)\n    return belongs_to(stream, known)\n",
        "        await asyncio.sleep(PAUSE)\n"
        "    return await _latest(source, stream.stream_id) if starting_position == 'latest' else known\n",
        ("G1 complete", "G2 order"),
        family="records",
    ),
    Mutant(
        "a hand-over does not wait for the calls under way",
        "consumer/worker/shard/release.py",
        "asyncio.timeout(self.grace if self.asked.is_set() else None) as self._limit",
        "asyncio.timeout(0.0) as self._limit",
        ("G5 duplicates",),
        family="fleet",
        quick=True,
    ),
    Mutant(
        "latest is resolved again for a stream that follows another",
        "consumer/worker/fleet/stream_replacement.py",
        "            await store.register(label_of(successor), start)\n",
        "",
        ("start position", "G1 complete"),
    ),
    Mutant(
        "a child does not wait for its parent",
        "consumer/domain/shards.py",
        'return row.state != "waiting" or all(',
        "return True or all(",
        ("G2 order",),
        family="records",
    ),
    Mutant(
        "an empty listing means gone",
        "consumer/worker/fleet/shard_listing.py",
        "may_exist = not listed or any(",
        "may_exist = any(",
        ("G1 complete",),
    ),
    Mutant(
        "a stop gives leases away before their shards are drained",
        "consumer/worker/fleet/shard_supervisor.py",
        "        while self._tasks:\n",
        "        while False:\n",
        ("G3 one owner", "G4 fenced", "G5 duplicates", "G7 no silent loss"),
        family="fleet",
    ),
    Mutant(
        "a lease is handed over with the frontier it came with",
        "consumer/worker/shard/held_lease.py",
        "return self._store.release(self._label, row, to, window)",
        "return self._store.release(self._label, self._taken, to, window)",
        ("G4 fenced", "G5 duplicates", "G7 no silent loss"),
        family="fleet",
    ),
    Mutant(
        "checkpoints are written at the end only",
        "consumer/worker/shard/held_lease.py",
        "await self._save(interval)",
        "await asyncio.sleep(interval)",
        ("G5 duplicates",),
        family="fleet",
        quick=True,
    ),
    Mutant(
        "a difference of one is evened out",
        "consumer/domain/planner.py",
        "if -most - fewest < 2:",
        "if -most - fewest < 1:",
        ("fair share", "liveness"),
        family="fleet",
    ),
    Mutant(
        "a save does not look at the revision",
        "consumer/testing/memory_leases.py",
        "if lease.row.revision < revision:",
        "if True:",
        ("G4 fenced",),
    ),
    Mutant(
        "one complete listing decides that a shard is gone",
        "consumer/worker/fleet/shard_listing.py",
        "if missing >= patience:",
        "if True:",
        ("G1 complete", "G2 order", "liveness"),
    ),
    Mutant(
        "a parent without a row counts as settled",
        "consumer/domain/shards.py",
        "all(parent in rows and rows[parent].lets_children_start for",
        "all(parent not in rows or rows[parent].lets_children_start for",
        ("G2 order",),
        family="lost_parent",
        quick=True,
        also=(("parent not in rows or not rows[parent].settled", "parent in rows and not rows[parent].settled"),),
    ),
    Mutant(
        "an owner puts its deleted row back with the frontier it came with",
        "consumer/worker/shard/held_lease.py",
        "        row = self.row\n",
        "        row = self._taken\n",
        ("G4 fenced",),
    ),
    Mutant(
        "tombstones go while their shards are still there",
        "consumer/domain/shards.py",
        "        and row.shard_id not in known\n",
        "",
        ("G4 fenced",),
    ),
    Mutant(
        "the pointer moves although the old stream is not finished",
        "consumer/worker/fleet/stream_replacement.py",
        "if not self._is_time_to_look() or not await self._finished_for_good():\n",
        "if not self._is_time_to_look() or not (await self._finished_for_good() or True):\n",
        ("G2 order", "G1 complete"),
        family="records",
    ),
    Mutant(
        "the pointer moves as soon as the old stream looks finished",
        "consumer/worker/fleet/stream_replacement.py",
        "if self._finished_since is None or now - self._finished_since < FINISHED_FOR:",
        "if self._finished_since is None:",
        ("G2 order", "G1 complete"),
    ),
    Mutant(
        "a row that is put back counts as old as it was read",
        "consumer/testing/memory_leases.py",
        "row = replace(row, revision=self._next_revision(row))",
        "pass",
        ("G4 fenced",),
    ),
    Mutant(
        "a row is put back by a session that was fenced",
        "consumer/testing/memory_leases.py",
        "if row.shard_id in self._leases(label) or session is None or session.row.fenced:",
        "if row.shard_id in self._leases(label):",
        ("G4 fenced", "G3 one owner", "G2 order"),
    ),
    Mutant(
        "an old stream without a listing is finished",
        "consumer/worker/fleet/stream_replacement.py",
        "return gone or self._unlisted_since is None",
        "return True",
        ("G1 complete", "G2 order"),
    ),
    Mutant(
        "a save does not look at owner and epoch",
        "consumer/testing/memory_leases.py",
        "if (row.owner, row.epoch) != (held.owner, held.epoch):\n            raise",
        "if False:\n            raise",
        ("G4 fenced", "G1 complete", "G5 duplicates"),
    ),
)
