"""``top --once`` on rows in memory and a real answer of a worker, and what changes between two looks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from consumer.cli.top_frames import Frames
from consumer.cli.worker_status import OwnedShard, WorkerStatus, worker_status
from consumer.domain.deferred import DeferredKey
from consumer.domain.fleet_rows import FleetRows
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.operate.metrics import RECORD_RESULTS
from consumer.operate.status import ShardStatus, Status, StatusBoard
from consumer.operate.status_json import status_json
from consumer.testing.memory_leases import MemoryLeaseStore
from tests.unit.cli.fleet_world import APPLICATION, DURATION, FleetWorld, world

__all__ = ["world"]


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[int]:
    """A server on a port of this machine that says this."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def status_of(incarnation: str, shard_id: str) -> bytes:
    """As a worker publishes it."""
    board = StatusBoard()
    shard = ShardStatus(shard_id, "open", incarnation, mine=True, lag=12.5, in_flight=7, retrying_keys=2)
    totals = dict.fromkeys(RECORD_RESULTS, 41)
    board.publish(
        Status(
            APPLICATION,
            "orders",
            incarnation,
            version="1.2.3",
            shards=(shard,),
            totals=totals,
            dead_letter_backlog=5,
        )
    )
    return status_json(board)


def test_once(world: FleetWorld) -> None:
    left, right = world.stream.open_shards()
    owner, dead = world.session("host-a/11"), world.session("host-b/22", fenced=True)
    deferred = (DeferredKey("digest-1", "120", since=world.time.wall()),)
    world.lease(left, owner=owner, low="100", deferred=deferred)
    world.lease(right, owner=dead, state="halted", note="records were trimmed")
    world.time.now += 4
    with answering(status_of(owner, left)) as port:
        done = world.run("top", "--once", "--worker", f"127.0.0.1:{port}")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines() if line.strip()]
    assert done.output.startswith(
        "projector: 2 shards, 1 workers; 1 shards stopped, 1 leases without an owner, 1 keys deferred, "
        "5 dead letters at the destination   2026-"
    )
    assert lines[2][:7] == ["host-a/11/01234567", "1", "open", "not", "ready", "1.2.3", "12.5s"]
    assert lines[3][:3] == ["host-b/22/01234567", "1", "fenced"]
    shards = {line[0]: line for line in lines[5:]}
    assert list(shards) == [right, left]
    assert shards[left][1:] == ["open", "host-a/11/01234567", "12.5s", "7", "2", "1", "0", "4s", "ago"]
    assert shards[right][1:6] == ["halted", "host-b/22/01234567", "(fenced)", "-", "-"]


def test_what_a_worker_publishes_is_understood() -> None:
    with answering(status_of("host/1/abc/5s", "s")) as port:
        found = worker_status("127.0.0.1", port, APPLICATION)
    assert (found.problem, found.handled, found.version, found.state) == ("", 41, "1.2.3", "not ready")
    assert dict(found.shards) == {"s": OwnedShard(12.5, 7, 2)}
    assert found.dead_letter_backlog == 5


def test_a_worker_that_is_not_there_is_named_and_nothing_else_is_missing(world: FleetWorld) -> None:
    left, _ = world.stream.open_shards()
    world.lease(left, owner=world.session("host-a/11"))
    with answering(b"") as port:
        pass
    done = world.run("top", "--once", "--worker", f"127.0.0.1:{port}")
    assert done.exit_code == 0
    assert f"127.0.0.1:{port}" in done.output
    assert "is not reached" in done.output
    assert left in done.output


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"not json", 200, "is no worker"),
        (b"[]", 200, "is no worker"),
        (b"[" * 100_000, 200, "is no worker"),
        (b"{}", 404, "answers 404"),
        (b'{"application": "other"}', 200, "is of the application other"),
    ],
)
def test_what_is_no_worker_of_this_application(body: bytes, status: int, problem: str) -> None:
    with answering(body, status) as port:
        assert worker_status("127.0.0.1", port, APPLICATION).problem == problem


def test_odd_values_are_not_shown_as_numbers() -> None:
    shards = [{"shard_id": "s", "mine": True, "lag": None, "in_flight": "many", "retrying_keys": 1e999}, "?"]
    document = {"application": APPLICATION, "shards": shards, "totals": {"handled": 10**400}}
    with answering(json.dumps(document).encode()) as port:
        found = worker_status("127.0.0.1", port, APPLICATION)
    assert (found.problem, found.handled, dict(found.shards)) == ("", None, {"s": OwnedShard()})


def test_a_session_that_does_not_move_is_silent_and_then_dead() -> None:
    session = SessionRow(f"host/1/abc/{DURATION:g}s", counter=4)
    fleet = FleetRows(APPLICATION, "stream", "label", {}, [session])
    frames = Frames()
    seen = [str(frames.workers(fleet, [], now)[1][2]) for now in (100.0, 103.0, 106.0)]
    assert seen == ["open", "silent 3s", "silent 6s"]
    cell: Any = frames.workers(fleet, [], 106.0)[1][2]
    assert cell.style == "red"
    moved = replace(fleet, sessions=[replace(session, counter=5)])
    assert frames.workers(moved, [], 107.0)[1][2] == "alive"


def test_rates_come_from_two_looks() -> None:
    session = SessionRow("host/1/abc/5s")
    fleet, frames = FleetRows(APPLICATION, "stream", "label", {}, [session]), Frames()
    rates = []
    for now, handled in ((10.0, 1000), (12.0, 1500), (14.0, 1400)):
        status = WorkerStatus("h:1", incarnation=session.incarnation, state="ready", handled=handled)
        rates.append(frames.workers(fleet, [status], now)[1][6])
    assert rates == ["-", "250.0", "0.0"]


def test_a_thousand_shards_fit_the_screen_and_the_worst_are_on_it() -> None:
    leases = {f"s{n:04d}": LeaseRow(f"s{n:04d}", state="open") for n in range(1000)}
    leases["s0700"] = replace(leases["s0700"], state="halted")
    status = WorkerStatus("h:1", shards={"s0900": OwnedShard(lag=500.0)})
    rows, more = Frames().shards(FleetRows(APPLICATION, "stream", "label", leases), [status], 0.0, 20)
    assert (len(rows), more, rows[1][0], rows[2][0]) == (21, 980, "s0700", "s0900")


def test_the_screen_goes_on_until_ctrl_c(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich takes standard output for a terminal here."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 40)))
    left, _ = world.stream.open_shards()
    world.lease(left, owner=world.session("host-a/11"))

    def meanwhile(_seconds: float) -> None:
        if len(world.time.slept) == 3:
            raise KeyboardInterrupt

    world.time.meanwhile = meanwhile
    done = world.run("top")
    assert done.exit_code == 0, done.output
    assert done.output.count("every lease has an owner") == 3
    assert "\x1b[?1049l" in done.output[-20:]  # the screen from before is back


def test_a_signal_that_ends_it_gives_the_terminal_back(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in the alternate screen, without a cursor, is what would be left."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 40)))
    looks: list[float] = []

    def meanwhile(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGTERM)
        assert len(looks) < 20

    world.time.meanwhile = meanwhile
    done = world.run("top")
    assert done.exit_code == 143, done.output
    assert "\x1b[?1049l" in done.output[-20:]


def test_a_single_look_that_was_broken_off_is_no_success(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken_off(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr(world.source, "iterator", broken_off)
    world.lease(world.stream.open_shards()[0])
    assert world.run("lag").exit_code == 1
    monkeypatch.setattr(MemoryLeaseStore, "leases", broken_off)
    assert world.run("top", "--once").exit_code == 1


def test_a_screen_needs_a_terminal(world: FleetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    done = world.run("top")
    assert (done.exit_code, "use --once" in done.output) == (2, True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")  # rich would show nothing until the end
    assert world.run("top").exit_code == 2
