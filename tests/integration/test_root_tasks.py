"""Whatever background task dies, the daemon ends with an error that names it: never a silent half-life."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.errors import StreamConsumerError
from consumer.operate.health_server import HealthServer
from consumer.settings.model import Settings
from consumer.worker import app, control_thread
from consumer.worker.control_thread import ControlThread, Watchdog
from consumer.worker.fleet.coordinator import Coordinator
from consumer.worker.fleet.session_renewal import SessionRenewal
from consumer.worker.fleet.stream_replacement import StreamReplacement
from consumer.worker.reporting import Pulse, Reporter
from demo.local_aws import LocalAws, free_port

ROOTS: dict[str, type[Any]] = {
    "pulse": Pulse,
    "watchdog": Watchdog,
    "http server": HealthServer,
    "session renewal": SessionRenewal,
    "coordinator": Coordinator,
    "reporter": Reporter,
    "stream follower": StreamReplacement,
}


@pytest.fixture(autouse=True)
def no_logging_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logging of a process belongs to the daemon in it; here the tests have one of their own."""
    monkeypatch.setattr(app, "configure_logging", lambda *_, **__: None)


@pytest.fixture
def settings(local_aws: LocalAws, aws_environment: None, tmp_path: Path, source_table: Any) -> Any:
    async def make(**more: Any) -> Settings:
        (tmp_path / "quiet_handler.py").write_text("async def handle(records, context):\n    return None\n")
        table = await source_table()
        document: dict[str, Any] = {
            "application": table.name,
            "aws": {
                "region": "us-east-1",
                "endpoints": dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs"), local_aws.endpoint),
            },
            "source": {"table": table.name},
            "handler": {
                "kind": "python",
                "isolation": "inline",
                "target": "quiet_handler:handle",
                "path": str(tmp_path),
            },
            "leases": {"table": f"leases-{table.name}", "create_table": True, "duration": "2s"},
            "http": {"port": free_port()},
            "shutdown": {"grace": "5s"},
        }
        return Settings.model_validate(document | more)

    return make


async def die(_: Any) -> None:
    await asyncio.sleep(0.2)
    raise RuntimeError("a bug")


async def end(_: Any) -> None:
    """A task that returns is as dead as one that raises."""
    await asyncio.sleep(0.2)


async def vanish(_: Any) -> None:
    """So does one that is cancelled by code that does not belong to the daemon."""
    await asyncio.sleep(0.2)
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in ROOTS for how in (die, end, vanish) if (name, how) != ("stream follower", end)],
)
async def test_a_dead_root_task_ends_the_daemon(name: str, how: Any, settings: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(ROOTS[name], "run", how)
    daemon = app.Daemon(await settings())
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(30):
            with pytest.raises(StreamConsumerError, match=f"background task {name} ended") as caught:
                await daemon.run(asyncio.Event())
    assert caught.value.exit_code == 70
    assert name in daemon._board.health()[1]
    assert [entry["task"] for entry in logs if entry["event"] == "task.died"] == [name]


async def test_a_listener_that_user_code_closed_ends_the_daemon(settings: Any, monkeypatch: Any) -> None:
    """User code can close file descriptors that are not its own."""
    daemon = app.Daemon(await settings())
    start = HealthServer.start

    async def soon_closed(self: HealthServer) -> None:
        await start(self)
        assert self._listener is not None
        asyncio.get_running_loop().call_later(0.3, self._listener.close)

    monkeypatch.setattr(HealthServer, "start", soon_closed)
    async with asyncio.timeout(30):
        with pytest.raises(StreamConsumerError, match="http server"):
            await daemon.run(asyncio.Event())


async def test_a_stop_is_no_death(settings: Any) -> None:
    """The same daemon, stopped: no error, and health stays good."""
    daemon = app.Daemon(await settings())
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(1.0, stop.set)
    async with asyncio.timeout(30):
        await daemon.run(stop)
    assert daemon._board.health() == (True, "ok")


async def test_letters_at_the_destination_are_counted(settings: Any, queue: Any) -> None:
    made = await queue()
    client = await made.session.client("sqs")
    for _ in range(3):
        await client.send_message(QueueUrl=made.url, MessageBody="a letter")
    daemon, stop = app.Daemon(await settings(on_failure={"destination": made.arn})), asyncio.Event()
    running = asyncio.create_task(daemon.run(stop))
    async with asyncio.timeout(30):
        while daemon._board.status is None or daemon._board.status.dead_letter_backlog is None:
            assert not running.done()
            await asyncio.sleep(0.05)
        stop.set()
        await running
    assert daemon._board.status.dead_letter_backlog == 3
    assert b"stream_consumer_dead_letter_backlog{" in daemon._metrics.render()[0]


async def test_a_count_that_never_comes_holds_up_neither_start_nor_stop(
    settings: Any, queue: Any, monkeypatch: Any
) -> None:
    asked = asyncio.Event()

    async def backlog(_: SqsDeadLetters) -> int:
        asked.set()
        await asyncio.Event().wait()
        return 0

    monkeypatch.setattr(SqsDeadLetters, "backlog", backlog)
    patient = await settings(on_failure={"destination": (await queue()).arn}, shutdown={"grace": "60s"})
    daemon, stop = app.Daemon(patient), asyncio.Event()
    running = asyncio.create_task(daemon.run(stop))
    async with asyncio.timeout(30):
        await asked.wait()
        while daemon._board.readiness() != (True, "ready"):
            await asyncio.sleep(0.05)
    stop.set()
    async with asyncio.timeout(30):  # below shutdown.grace
        await running
    assert daemon._board.status is not None
    assert daemon._board.status.dead_letter_backlog is None
    assert b"stream_consumer_dead_letter_backlog{" not in daemon._metrics.render()[0]


async def test_the_control_thread_itself_may_not_end(monkeypatch: Any) -> None:
    """With it go renewals, probes and the watchdog, so nothing else could notice."""
    codes: list[int] = []
    monkeypatch.setattr(control_thread, "die", codes.append)
    thread = ControlThread()
    thread.start()
    thread._loop.call_soon_threadsafe(thread._loop.stop)
    await asyncio.to_thread(thread._thread.join, 5.0)
    assert codes == [70]
    proper = ControlThread()
    proper.start()
    await proper.stop()
    assert codes == [70]
