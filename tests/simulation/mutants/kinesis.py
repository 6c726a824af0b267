"""Mistakes by which changes that come through Kinesis are lost without a trace, or older ones take effect last."""

from __future__ import annotations

from tests.simulation.mutants.mutant import Mutant

KINESIS = (
    Mutant(
        "a shard with two parents starts after one of them",
        "consumer/domain/shards.py",
        'return row.state != "waiting" or all(parent in rows',
        'return row.state != "waiting" or not row.parents or any(parent in rows',
        ("G2 order", "last version"),
        family="kinesis",
    ),
    Mutant(
        "whatever comes first counts as the record that was expected",
        "consumer/domain/kinesis_resume.py",
        'return ("found", replace(self, found=True)) if same else ("gone", self)',
        'return ("found", replace(self, found=True))',
        ("G7 no silent loss",),
        family="kinesis",
    ),
    Mutant(
        "that a shard was complete once is enough",
        "consumer/domain/completeness.py",
        "return complete_at > now - retention + SLACK",
        "return complete_at > 0.0",
        ("G7 no silent loss",),
        family="kinesis",
    ),
    Mutant(
        "a new owner does not look back",
        "consumer/worker/shard/look_back.py",
        "self._remember(record, self._key_of(record), stretch is self._own)",
        "pass",
        ("last version",),
        family="kinesis",
    ),
    Mutant(
        "older changes are given to the handler",
        "consumer/worker/shard/seen_versions.py",
        'return verdict in ("double", "older")',
        'return verdict == "double"',
        ("last version",),
        family="kinesis",
    ),
    Mutant(
        "changes that come twice are given to the handler twice",
        "consumer/worker/shard/seen_versions.py",
        'return verdict in ("double", "older")',
        'return verdict == "older"',
        ("last version",),
        family="kinesis",
    ),
    Mutant(
        "what came too late is new when it is read again",
        "consumer/domain/item_versions.py",
        'return self._too_late.get((item, version.number), "new")',
        'return "new"',
        ("last version",),
        family="kinesis",
    ),
    Mutant(
        "a page without next iterator ends a closed shard",
        "consumer/aws/kinesis_shards.py",
        "            if rest.records:\n                break\n",
        "            if rest.records:\n                return\n",
        ("G1 complete", "G2 order", "liveness"),
        family="kinesis",
    ),
)
