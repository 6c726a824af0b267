"""An application in memory, as commands about its fleet find it: a stream, a lease table, and time that passes by
sleeping."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from consumer.cli import reach
from consumer.cli.main import main
from consumer.cli.reach import Reach
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, SessionRow, name_of
from consumer.settings.model import Settings
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import HeldLease, HeldSession, MemoryTable

APPLICATION = "projector"
DURATION = 5.0


class Time:
    """A clock that moves by sleeping, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.meanwhile: Callable[[float], None] = lambda seconds: None
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now

    def heard(self, time: float) -> None: ...

    def trusted(self) -> float:
        return self.wall()

    def ahead(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        self.meanwhile(seconds)


class FleetWorld:
    """``run`` is the command line on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, shards: int = 2) -> None:
        self.time = Time()
        self.stream = MemoryStream(self.time, shards=shards)
        self.source: Any = MemoryStreamSource(self.stream)
        self.table = MemoryTable(service_time=self.time.wall)
        self.table.applications[APPLICATION] = self.stream.arn.partition("/stream/")[0]
        self.table.streams[APPLICATION] = self.stream.arn
        self.path = folder / "consumer.yaml"
        self.configure()
        monkeypatch.setattr(reach, "reached", self._reached)

    def configure(self, **sections: Any) -> None:
        config = {
            "application": APPLICATION,
            "source": {"table": "orders"},
            "handler": {"kind": "python", "target": "app:handler"},
            "leases": {"duration": f"{DURATION:g}s"},
        }
        self.path.write_text(yaml.safe_dump(config | sections))
        self.path.chmod(0o600)

    @asynccontextmanager
    async def _reached(self, settings: Settings) -> AsyncIterator[Reach]:
        store = MemoryLeaseStore(self.table, settings.application, self.time.wall)
        yield Reach(settings, self.source, store, self.time, self.time.sleep)

    def lease(self, shard_id: str, **fields: Any) -> LeaseRow:
        """A row, as a worker or a person left it. ``low`` and ``runs`` are of its frontier."""
        names = ("low", "first", "runs", "deferred")
        frontier = FrontierSnapshot(**{name: fields.pop(name) for name in names if name in fields})
        row = LeaseRow(shard_id, **{"state": "open", "updated_at": self.time.wall(), "frontier": frontier} | fields)
        held = self.table.leases.setdefault((APPLICATION, self.stream.label), {})
        held[shard_id] = HeldLease(row)
        return row

    def row(self, shard_id: str) -> LeaseRow:
        return self.table.leases[APPLICATION, self.stream.label][shard_id].row

    def session(self, process: str, **fields: Any) -> str:
        """An open session; returns its incarnation."""
        incarnation = name_of(process, "0123456789abcdef", DURATION)
        row = SessionRow(incarnation, started_at=self.time.wall(), **fields)
        self.table.sessions.setdefault(APPLICATION, {})[incarnation] = HeldSession(row, object())
        return incarnation

    def renew(self, incarnation: str) -> None:
        held = self.table.sessions[APPLICATION][incarnation]
        held.row = replace(held.row, counter=held.row.counter + 1)

    def is_fenced(self, incarnation: str) -> bool:
        return self.table.sessions[APPLICATION][incarnation].row.fenced

    def run(self, *words: str) -> Result:
        done = CliRunner().invoke(main, [*words, "--config", str(self.path)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def json(self, *words: str, code: int = 0) -> Any:
        done = self.run(*words, "--output", "json")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetWorld:
    return FleetWorld(tmp_path, monkeypatch)
