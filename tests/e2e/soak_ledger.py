"""What the soak knows of its records and its processes: effects, dead letters, losses, memory and descriptors."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, Worker
from tests.e2e.hurt import key_of
from tests.e2e.soak_weather import Record, Trim, Upstream

MB = 1_000_000
# Each of these is a bug, or the end of something that nothing in the soak should end.
NEVER = {
    *("daemon.crashed", "task.died", "process.wedged", "session.overrun", "shutdown.overrun", "log.dropped"),
    *("shard.worker_failed", "shard.halted", "shard.quarantined", "lease.put_back", "lease.epoch_went_back"),
    *("handler.keeper_failed", "handler.protocol_broken", "pages.fallback_parser", "http.descriptors_exhausted"),
}


class Effects:
    """The journal, read as it grows, as a sink with the condition of docs/guarantees.md takes it: what comes from an
    older lease than the key has seen has no effect."""

    def __init__(self, path: Path) -> None:
        self.count = self.stale = self.late = 0
        self.by_worker: Counter[str] = Counter()
        self.shard_of: dict[str, set[str]] = defaultdict(set)
        self._last: dict[str, dict[int, int]] = defaultdict(dict)  # when a version had its last effect
        self._newest: Counter[str] = Counter()
        self._lease: dict[str, tuple[str, int]] = {}
        self._path, self._offset = path, 0

    def read(self) -> None:
        """Take in what was added."""
        if not self._path.exists():
            return
        with self._path.open("rb") as journal:
            journal.seek(self._offset)
            added = journal.read()
        added = added[: added.rfind(b"\n") + 1]
        self._offset += len(added)
        for line in added.decode().splitlines():
            key, version, worker, shard_id, epoch = line.split()
            self._take(key, int(version), worker, (shard_id, int(epoch)))

    def _take(self, key: str, version: int, worker: str, lease: tuple[str, int]) -> None:
        self.count += 1
        self.by_worker[worker] += 1
        self.shard_of[key].add(lease[0])
        if lease < self._lease.get(key, lease):  # the ids of shards grow
            self.stale += 1
            return
        self._lease[key] = lease
        self.late += version not in self._last[key] and version < self._newest[key]
        self._newest[key] = max(version, self._newest[key])
        self._last[key][version] = self.count

    def handled(self) -> set[Record]:
        """All records with an effect."""
        return {(key, version) for key, versions in self._last.items() for version in versions}

    @property
    def distinct(self) -> int:
        return sum(map(len, self._last.values()))

    def ended_out_of_order(self) -> int:
        """Versions whose last effect came after that of the next version: with these the sink ends up wrong."""
        wrong = 0
        for versions in self._last.values():
            moments = [moment for _, moment in sorted(versions.items())]
            wrong += sum(later < earlier for earlier, later in pairwise(moments))
        return wrong


class Letters:
    """The dead letters, taken from the queue."""

    def __init__(self, aws: Aws, url: str) -> None:
        self.records: Counter[Record] = Counter()
        self._aws, self._url = aws, url

    def read(self) -> None:
        """Take what is there."""
        for body in self._aws.messages(self._url):
            for record in json.loads(body)["payload"]["Records"]:
                change = record["dynamodb"]
                self.records[change["Keys"]["pk"]["S"], int(change["NewImage"]["version"]["N"])] += 1


def traced(
    aws: Aws, fleet: Fleet, upstream: Upstream, trims: Iterable[Trim], missing: set[Record], effects: Effects
) -> set[Record]:
    """Those of ``missing`` that the proxy trimmed, and that a ``gap`` row of the lease table covers."""
    rows = aws.dynamodb.scan(TableName=f"leases-{fleet.table}", ConsistentRead=True)["Items"]
    gaps = [
        (row["shard_id"]["S"], int(row.get("first", {}).get("S") or 0))
        for row in rows
        if key_of(row)["sk"]["S"].startswith("gap#")
    ]
    ranges = []
    for shard, after in gaps:  # each gap ends where the first trim after it does: a later one has a row of its own
        upto = min((trim.upto for trim in trims if trim.shard_id == shard and trim.upto > after), default=after)
        ranges.append((shard, after, upto))
    return {
        (key, version)
        for number, (key, version) in upstream.records()
        if (key, version) in missing
        and any(shard in effects.shard_of[key] and after < int(number) <= upto for shard, after, upto in ranges)
    }


@dataclass
class Footprint:
    """Memory and descriptors of one daemon, sample by sample."""

    worker: Worker
    hours: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    family: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def sample(self, hours: float) -> str:
        """Take one, and say what it was."""
        pid = self.worker.process.pid
        if self.worker.process.poll() is not None:
            return f"{self.worker.name} has ended"
        self.hours.append(hours)
        self.alone.append(_resident(pid) / MB)
        self.family.append(sum(_resident(one) for one in (pid, *_descendants(pid))) / MB)
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.worker.metric("stream_consumer_get_records_total")  # somebody looks at a daemon, as a Prometheus does
        return f"{self.worker.name} {self.alone[-1]:.1f}/{self.family[-1]:.0f} MB {self.descriptors[-1]} fd"

    def slope(self) -> float:
        """MB an hour of the daemon alone, by least squares over the second two thirds."""
        start = len(self.hours) // 3
        if len(self.hours) - start < 2:
            return 0.0
        return statistics.linear_regression(self.hours[start:], self.alone[start:]).slope

    def descriptor_thirds(self) -> tuple[int, int]:
        """The most in the middle third and in the last."""
        third = len(self.descriptors) // 3
        middle, last = self.descriptors[third : 2 * third], self.descriptors[2 * third :]
        return max(middle, default=0), max(last, default=0)


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # a handler process that has just ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS")), 0)


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}
