"""Mistakes by which a failing key is lost or overtaken, or takes what others need."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

FAILING_KEYS = (
    Mutant(
        "a deferred key is forgotten in the checkpoint",
        "consumer/worker/shard/subscription.py",
        "self.frontier.snapshot(max_runs_bytes, self.deferred.snapshot())",
        "self.frontier.snapshot(max_runs_bytes)",
        ("G1 complete",),
        family="failing_keys",
    ),
    Mutant(
        "the checkpoint passes what waits behind a deferred record",
        "consumer/worker/shard/subscription.py",
        "digest, head = digest_of(key), kept[0].record.dynamodb",
        "digest, head = digest_of(key), (*kept, *dropped)[-1].record.dynamodb",
        ("G1 complete",),
        family="failing_keys",
    ),
    Mutant(
        "what is read again comes in any order",
        "consumer/worker/shard/catch_up.py",
        "dispatcher.add_read_again(entries)",
        "dispatcher.add_read_again(entries[::-1])",
        ("G2 order",),
        family="failing_keys",
    ),
    Mutant(
        "a key is read again while a record of it is in memory",
        "consumer/domain/deferred.py",
        "if not (entry := self._entries[key.digest]).in_memory and not entry.met",
        "if (entry := self._entries[key.digest]).in_memory < 2 and not entry.met",
        ("G2 order", "G5 duplicates"),
        family="failing_keys",
    ),
    Mutant(
        "what waits behind a failing key overtakes it",
        "consumer/domain/batching.py",
        "                if key not in busy:\n",
        "                if key not in busy or key in failing:\n",
        ("G2 order",),
        family="failing_keys",
    ),
    Mutant(
        "the pass meets the main reader one page too early",
        "consumer/worker/shard/catch_up.py",
        "            if number >= newest:",
        "            if number >= newest or record is page.records[-1]:",
        ("G1 complete", "G2 order"),
        family="failing_keys",
    ),
    Mutant(
        "the meeting is noticed after a pause",
        "consumer/worker/shard/catch_up.py",
        "            if number >= newest:",
        "            if False:",
        ("G1 complete", "G2 order", "liveness"),
        family="failing_keys",
    ),
    Mutant(
        "a child ignores what its parent has deferred",
        "consumer/worker/shard/shard_worker.py",
        "    digests = {digest for listed in lineage.keys_held_back(row.parents) for digest in listed or ()}\n",
        "    digests: set[str] = set()\n",
        ("G2 order",),
        family="failing_keys",
    ),
    Mutant(
        "a shard with deferred keys counts as settled",
        "consumer/domain/lease.py",
        'return self.state in ("draining", "done")',
        'return self.state in ("deferred", "draining", "done")',
        ("G1 complete", "G2 order"),
        family="failing_keys",
    ),
    Mutant(
        "a key catches up before what was settled behind it is read again",
        "consumer/worker/shard/subscription.py",
        "return self.frontier.newest >= self._settled_before.top",
        "return True",
        ("G1 complete", "G2 order", "liveness"),
        family="failing_keys",
    ),
    Mutant(
        "the main reader drops what follows the meeting",
        "consumer/worker/shard/subscription.py",
        "in deferred and not deferred.has_met(digest):",
        "in deferred:",
        ("G1 complete", "G2 order"),
        family="failing_keys",
    ),
    Mutant(
        "a key that is deferred again stays in its pass",
        "consumer/domain/deferred.py",
        "            self.in_pass.pop(digest, None)  # what it reads next does not follow what is held\n",
        "",
        ("G1 complete", "G2 order"),
        family="failing_keys",
    ),
)
