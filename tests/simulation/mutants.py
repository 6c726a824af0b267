"""The mutation gate: one-line mistakes in the production code, each of which the simulator must notice.

A simulator that finds nothing proves nothing unless it would find something. Every mutant breaks one rule that a
guarantee rests on; it is applied to a copy of the package, never to the checkout, and has to be caught within 200 seeds
of its family of runs. ``make mutants`` runs them all; the test suite runs those that die quickly.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("consumer", "tests/__init__.py", "tests/simulation", "tests/unit/__init__.py", "tests/unit/worker")
MOST_SEEDS = 200


@dataclass(frozen=True)
class Mutant:
    """``old`` must occur exactly once in ``file``. ``caught_by``: the checkers of which one has to speak up."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    family: str = "protocol"
    quick: bool = False


MUTANTS = (
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
        "observers count from long before their reading",
        "consumer/worker/fleet/membership.py",
        "self._observer.observe(self.sessions, owners, self._read_at)",
        "self._observer.observe(self.sessions, owners, self._read_at - self._duration / 2)",
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
        "no look at the deadline before a call",
        "consumer/worker/shard/batch_runner.py",
        "if not await self._still_owns() or self._draining.is_set():",
        "if self._draining.is_set():",
        ("G3 one owner",),
    ),
    Mutant(
        "dead letters are sent without owning the lease",
        "consumer/worker/shard/dead_letter_delivery.py",
        "            self._require_lease()\n",
        "",
        ("G3 one owner", "G5 duplicates"),
        family="records",
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
        "records count as settled before they are handled",
        "consumer/worker/shard/batch_runner.py",
        "        settled = 0\n        request_id",
        "        settled = 0\n        self._subscription.frontier.settle([one.position for one in entries])\n"
        "        request_id",
        ("G1 complete",),
        family="records",
        quick=True,
    ),
    Mutant(
        "latest is resolved again by every process",
        "consumer/worker/fleet/registration.py",
        '    if known is not None:\n        return known\n    if starting_position == "latest":\n'
        "        start = await _latest(source, stream.stream_arn)\n",
        '    if starting_position == "latest":\n        start = await _latest(source, stream.stream_arn)\n'
        "        await registry.register(stream.label, start)\n        return start\n",
        ("G1 complete", "G2 order"),
        family="records",
    ),
    Mutant(
        "a hand-over does not wait for the calls under way",
        "consumer/worker/shard/shard_worker.py",
        "asyncio.timeout(self._grace if self.releasing else None) as self._drain_limit",
        "asyncio.timeout(0.0) as self._drain_limit",
        ("G5 duplicates",),
        family="fleet",
        quick=True,
    ),
    Mutant(
        "what the previous owner settled is forgotten until it is read again",
        "consumer/domain/frontier.py",
        "        runs.extend(self._beyond_re_read())\n",
        "",
        ("G5 duplicates",),
        family="records",
    ),
    Mutant(
        "where a shard was read first is not stored",
        "consumer/domain/frontier.py",
        "self._first = numbers[0]",
        "self._first = None",
        ("G7 no silent loss",),
        family="records",
    ),
    Mutant(
        "latest is resolved again for a stream that follows another",
        "consumer/worker/fleet/stream_replacement.py",
        "            await store.register(label_of(successor), start)\n",
        "",
        ("start position", "G1 complete"),
    ),
    Mutant(
        "a process that starts follows the newest stream at once",
        "consumer/worker/start.py",
        'source, stream = await at_start(clock, "the stream", lambda: current_stream(configured, store, latest))',
        "source, stream = configured.of(latest.stream_arn), latest",
        ("G2 order", "G1 complete", "liveness"),
    ),
    Mutant(
        "a child does not wait for its parent",
        "consumer/domain/shards.py",
        'return row.state != "waiting" or all(parent in rows and rows[parent].settled for parent in row.parents)',
        "return True",
        ("G2 order",),
        family="records",
        quick=True,
    ),
    Mutant(
        "the end of a shard does not wait for calls under way",
        "consumer/worker/shard/dispatcher.py",
        "while not self._is_through:",
        "while False:",
        ("G1 complete",),
        family="records",
        quick=True,
    ),
    Mutant(
        "the checkpoint passes what is in flight",
        "consumer/domain/frontier.py",
        "while above and offset in settled:",
        "while above:",
        ("G1 complete",),
        family="records",
        quick=True,
    ),
    Mutant(
        "what is settled above the checkpoint is forgotten",
        "consumer/worker/shard/subscription.py",
        "return snapshot if self._exact else replace(snapshot, runs=())",
        "return replace(snapshot, runs=())",
        ("G5 duplicates",),
        family="records",
        quick=True,
    ),
    Mutant(
        "settled numbers are compared as text",
        "consumer/domain/frontier.py",
        "return at >= 0 and number <= self._ends[at]",
        "return at >= 0 and str(number) <= str(self._ends[at])",
        ("G1 complete", "G2 order", "G5 duplicates"),
        family="records",
    ),
    Mutant(
        "failed numbers are compared as text",
        "consumer/domain/settlement.py",
        "lowest = min(int(number) for number in outcome.failed)",
        "lowest = int(min(outcome.failed))",
        ("G1 complete", "G2 order"),
        family="records",
    ),
    Mutant(
        "trimmed means ended",
        "consumer/worker/shard/shard_worker.py",
        '            except TrimmedData:\n                return "trimmed"',
        '            except TrimmedData:\n                return "end"',
        ("G7 no silent loss", "G1 complete"),
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
        "an expired iterator starts again from the checkpoint",
        "consumer/worker/shard/reader.py",
        'return Position("AFTER_SEQUENCE_NUMBER", self._fetched)',
        'return Position("AFTER_SEQUENCE_NUMBER", self._subscription.frontier.low or self._fetched)',
        ("no bug", "G5 duplicates"),
        family="records",
    ),
    Mutant(
        "children start at LATEST",
        "consumer/worker/shard/reader.py",
        '        return Position("TRIM_HORIZON")\n\n    async def',
        '        return Position("LATEST")\n\n    async def',
        ("G1 complete", "G2 order", "liveness"),
        family="records",
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
        "                    if not self.is_saved:\n",
        "                    if False:\n",
        ("G5 duplicates",),
        family="fleet",
        quick=True,
    ),
    Mutant(
        "a dead letter that was refused counts as sent",
        "consumer/worker/shard/dead_letter_delivery.py",
        "error=str(error))\n            return False",
        "error=str(error))\n            return True",
        ("G1 complete",),
        family="records",
    ),
    Mutant(
        "a key may be in two batches",
        "consumer/domain/batching.py",
        "            if key not in busy:\n",
        "            if True:\n",
        ("G2 order",),
        family="records",
    ),
    Mutant(
        "bisect tries the right half first",
        "consumer/domain/settlement.py",
        "self._replace(piece.records[:half], piece.records[half:])",
        "self._replace(piece.records[half:], piece.records[:half])",
        ("G2 order", "G1 complete"),
        family="records",
    ),
    Mutant(
        "a difference of one is evened out",
        "consumer/domain/planner.py",
        "if held[giver] - held[taker] < 2:",
        "if held[giver] - held[taker] < 1:",
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
        ("G1 complete", "G2 order"),
    ),
    Mutant(
        "a parent without a row counts as settled",
        "consumer/domain/shards.py",
        "all(parent in rows and rows[parent].settled for",
        "all(parent not in rows or rows[parent].settled for",
        ("G2 order",),
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
        "revision = row.revision if row.owner is None else self._next_revision(row)",
        "revision = row.revision",
        ("G4 fenced",),
    ),
    Mutant(
        "an old stream without a listing is finished",
        "consumer/worker/fleet/stream_replacement.py",
        "return self._unlisted_since is None or now - self._unlisted_since >= GONE_FOR",
        "return True",
        ("G1 complete", "G2 order"),
    ),
    Mutant(
        "the sink compares numbers as text",
        "tests/simulation/sink.py",
        "str(item.number).zfill(40)",
        "str(item.number)",
        ("G6 exactly once",),
        family="records",
        quick=True,
    ),
    Mutant(
        "a save does not look at owner and epoch",
        "consumer/testing/memory_leases.py",
        "if (row.owner, row.epoch) != (held.owner, held.epoch):\n            raise",
        "if False:\n            raise",
        ("G4 fenced", "G1 complete", "G5 duplicates"),
    ),
    Mutant(
        "an expired iterator means the end of the shard",
        "consumer/worker/shard/reader.py",
        "                iterator = None\n                expired += 1\n",
        "                return\n",
        ("G1 complete", "G2 order", "liveness"),
        family="records",
    ),
    Mutant(
        "a listed child means that its parent is read to its end",
        "consumer/worker/shard/reader.py",
        "            if page.next_iterator is None:\n",
        "            if page.next_iterator is None or self._lineage.has_children(self._shard_id):\n",
        ("G1 complete", "G2 order"),
        family="records",
    ),
    Mutant(
        "latest drops what was written in its own second",
        "consumer/worker/shard/subscription.py",
        "< change.ApproximateCreationDateTime < start_at",
        "< change.ApproximateCreationDateTime <= start_at",
        ("G1 complete", "liveness"),
        family="records",
    ),
    Mutant(
        "garbage from the handler counts as success",
        "consumer/domain/outcome.py",
        'return Outcome("failed", fault=HandlerFault("bad_response", "BadResponse", message))',
        "return OK",
        ("G6 exactly once",),
        family="records",
    ),
    Mutant(
        "keys get free before their batch is settled",
        "consumer/worker/shard/dispatcher.py",
        "                if self._windowed is None:\n",
        "                self._queue.free(batch.keys)\n                batch.keys = {}\n"
        "                if self._windowed is None:\n",
        ("G2 order",),
        family="records",
        quick=True,
    ),
    Mutant(
        "what gets settled is taken for the oldest",
        "consumer/domain/frontier.py",
        "if not settled and list(indices) == list(range(offset, offset + len(indices))):",
        "if not settled:",
        ("G1 complete",),
        family="records",
        quick=True,
    ),
    Mutant(
        "a null iterator is no end",
        "consumer/worker/shard/reader.py",
        "            if page.next_iterator is None:\n",
        "            if page.next_iterator is None and expired:\n",
        ("liveness",),
        family="records",
    ),
    Mutant(
        "records that are let go stay in the byte budget",
        "consumer/domain/batching.py",
        "        if self.left == 0:\n",
        "        if self.left < 0:\n",
        ("byte budget", "liveness"),
        family="records",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """``seeds``: how many it took; ``checkers``: who spoke up on the first failing seed."""

    caught: bool
    seeds: int
    checkers: tuple[str, ...]
    output: str


def occurrences(mutant: Mutant) -> int:
    return (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)


@contextmanager
def applied(mutant: Mutant) -> Iterator[str]:
    """A folder to run in: a copy of the package and its simulations with the mistake.
    ValueError when it does not apply, because
    then it would prove nothing."""
    if occurrences(mutant) != 1:
        raise ValueError(f"the line to change is not there once in {mutant.file}: {mutant.name}")
    with tempfile.TemporaryDirectory() as folder:
        for part in COPIED:
            source, target = ROOT / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
        path = Path(folder) / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        yield folder


def run(mutant: Mutant, seeds: int = MOST_SEEDS) -> Verdict:
    """Apply ``mutant`` to a copy of the package and run its family until a seed fails."""
    with applied(mutant) as folder:
        command = [sys.executable, "-m", "tests.simulation.simulate", mutant.family, "--seeds", str(seeds), "--stop"]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"seed (\d+): a promise was broken", done.stdout)
    checkers = tuple(dict.fromkeys(re.findall(r"^ +[\d.]+  ([^:]+): ", done.stdout, re.MULTILINE)))
    output = done.stdout + done.stderr
    return Verdict(found is not None, int(found[1]) + 1 if found else seeds, checkers, output)


def main() -> int:
    """All mutants whose name contains the argument, if there is one; two at a time."""
    chosen = [mutant for mutant in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in mutant.name]
    survived = 0
    with ThreadPoolExecutor(2) as pool:
        running = {pool.submit(run, mutant): mutant for mutant in chosen}
        for ended in as_completed(running):
            mutant, verdict = running[ended], ended.result()
            as_expected = verdict.caught and not set(verdict.checkers).isdisjoint(mutant.caught_by)
            survived += not as_expected
            state = "caught" if as_expected else "NOT CAUGHT" if not verdict.caught else "caught by another checker"
            print(f"{state} after {verdict.seeds} seeds: {mutant.name} ({', '.join(verdict.checkers)})", flush=True)
            if not as_expected:
                print(verdict.output[-2000:])
    print(f"mutants: {len(chosen)}, not caught as they should: {survived}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
