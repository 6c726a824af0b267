"""One run of the demo: the real daemon on an embedded local AWS, through the real network client.

Creates a table with a stream and a dead-letter queue, writes a live mix with some poison, runs the daemon as a process
of its own, shows what happens, stops it, and compares what was produced with what came out. With Kinesis as the source
the changes take the way over a Kinesis stream, late, doubled and out of order (``kinesis_feed.py``).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from consumer.aws.session import AwsSession
from demo.kinesis_feed import Envelope, KinesisFeed
from demo.local_aws import free_port
from demo.producer import Change, Producer
from demo.resources import REGION, create_queue, create_stream, create_table, table_stream

Kind = Literal["dynamodb", "kinesis"]

TABLE, QUEUE, STREAM = "demo-orders", "demo-orders-dlq", "demo-orders-changes"
SERVICES = ("dynamodb", "dynamodb_streams", "kinesis", "sqs")
SETTLE_DEADLINE = 60.0  # seconds that the daemon gets to catch up after the last write
ROOT = Path(__file__).resolve().parents[1]

CONFIG = """\
application: demo-projector
aws:
  region: {region}
  endpoints: {{dynamodb: {url}, dynamodb_streams: {url}, kinesis: {url}, sqs: {url}}}
source: {source}
handler: {{kind: lambda, target: "demo.demo_handler:handler", processes: 2, timeout: 10s}}
batch: {{batch_size: 25, parallelization_factor: 8}}
retry: {{max_retry_attempts: 1, bisect_on_error: true, backoff: {{initial: 100ms, max: 1s}}}}
on_failure: {{destination: "{queue_arn}"}}
leases: {{table: demo-leases, create_table: true, duration: 5s}}
http: {{port: {port}}}
logging: {{level: info, format: json}}
"""


SOURCES: Mapping[Kind, str] = {
    "dynamodb": f"{{table: {TABLE}}}",
    "kinesis": f"{{kind: kinesis, stream: {STREAM}, table: {TABLE}, poll: {{target_latency: 500ms}}}}",
}


def say(text: str = "") -> None:
    """Print a line at once: output that waits in a buffer shows nothing live."""
    print(text, flush=True)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of records. ``handled`` and ``dead_lettered`` count each record once; ``again`` what came twice.
    ``superseded`` came nowhere, as it should: a newer change of its item was in the Kinesis stream before it."""

    produced: int
    handled: int
    dead_lettered: int
    again: int
    lost: int
    out_of_order: int
    superseded: int = 0

    @property
    def line(self) -> str:
        return (
            f"demo: produced={self.produced} handled={self.handled} dead_lettered={self.dead_lettered} "
            f"lost={self.lost} out_of_order={self.out_of_order}"
        )


def judge(
    expected: Mapping[str, Sequence[Change]],
    handled: Iterable[tuple[str, Change]],
    dead: Iterable[tuple[str, Change]],
    put: Sequence[tuple[str, Change]] = (),
) -> Verdict:
    """``handled`` in the order of handling; a record counts as out of order when a later one of its key came first.
    ``put``: what was put into the Kinesis stream, in this order."""
    position = {(key, change): at for key, changes in expected.items() for at, change in enumerate(changes)}
    newest: dict[str, int] = {}
    seen: set[tuple[str, Change]] = set()
    again = out_of_order = 0
    for key, change in handled:
        if (key, change) in seen:
            again += 1
            continue
        seen.add((key, change))
        at = position.get((key, change), -1)
        out_of_order += at < newest.get(key, -1)
        newest[key] = max(at, newest.get(key, -1))
    dead_only = set(dead) - seen
    missing = position.keys() - seen - dead_only
    superseded = len(missing & late(put))
    handled_once = len(seen & position.keys())
    lost = len(missing) - superseded
    return Verdict(len(position), handled_once, len(dead_only), again, lost, out_of_order, superseded)


def late(put: Iterable[tuple[str, Change]]) -> set[tuple[str, Change]]:
    """What was put only after a newer change of its item. Of a key versions grow, and the deletion of one is newer than
    the write of it; so the last version of a key is never among them."""
    newest: dict[str, tuple[int, bool]] = {}
    found: set[tuple[str, Change]] = set()
    early: set[tuple[str, Change]] = set()
    for key, change in put:
        age = (change[1], change[0] == "REMOVE")
        (found if age < newest.get(key, age) else early).add((key, change))
        newest[key] = max(age, newest.get(key, age))
    return found - early


class Demo:
    """One run of the demo.

    Args:
        url: endpoint of every service.
        folder: where the config, the daemon's log and the handler's journal go.
        stop: ends the writing; what was written is still settled and judged.
        kind: the source of the daemon.
    """

    def __init__(self, url: str, folder: Path, stop: asyncio.Event, kind: Kind = "dynamodb") -> None:
        self._url = url
        self._kind: Kind = kind
        self._put: list[tuple[str, Change]] = []
        self._folder = folder
        self._port = free_port()
        self._journal = folder / "journal.jsonl"
        self._log = folder / "daemon.log"
        self._dead: list[tuple[str, Change]] = []
        self._shown = 0
        self._stop = stop

    async def run(self, seconds: float | None) -> Verdict:
        """Write for ``seconds`` (None: until ``stop`` is set), then judge."""
        urls = dict.fromkeys(SERVICES, self._url)
        async with AwsSession(REGION, urls) as session:
            dynamodb, sqs = await session.client("dynamodb"), await session.client("sqs")
            await create_table(dynamodb, TABLE)
            self._queue, queue_arn = await create_queue(sqs, QUEUE)
            config = self._write_config(queue_arn)
            producer = Producer(dynamodb, TABLE)
            feed = await self._make_feed(session, dynamodb) if self._kind == "kinesis" else None
            daemon = await self._start_daemon(config)
            try:
                await self._show(producer, feed, sqs, daemon, seconds)
            finally:
                exit_code = await self._stop_daemon(daemon)
            await self._collect_dead(sqs)
            say(f"  daemon stopped on SIGTERM with exit code {exit_code}; its log: {self._log}")
            return judge(producer.expected, self._handled(), self._dead, self._put)

    async def _make_feed(self, session: AwsSession, dynamodb: Any) -> KinesisFeed:
        kinesis = await session.client("kinesis")
        await create_stream(kinesis, STREAM)
        source = table_stream(await session.client("dynamodbstreams"), dynamodb, TABLE)

        def note(envelope: Envelope) -> None:
            self._put.append(_change_in(envelope["eventName"], envelope["dynamodb"]))

        return KinesisFeed(source, kinesis, STREAM, put=note)

    def _write_config(self, queue_arn: str) -> Path:
        config = self._folder / "demo.yaml"
        config.write_text(
            CONFIG.format(
                region=REGION, url=self._url, source=SOURCES[self._kind], queue_arn=queue_arn, port=self._port
            )
        )
        return config

    async def _start_daemon(self, config: Path) -> asyncio.subprocess.Process:
        # The handler is in the checkout, not in the wheel.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "consumer",
                "run",
                "--config",
                str(config),
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, "DEMO_JOURNAL": str(self._journal)},
                start_new_session=True,  # Ctrl-C is for the demo: it stops the daemon itself
            )

    async def _show(
        self,
        producer: Producer,
        feed: KinesisFeed | None,
        sqs: Any,
        daemon: asyncio.subprocess.Process,
        seconds: float | None,
    ) -> None:
        say(f"  status page  http://127.0.0.1:{self._port}/    metrics  http://127.0.0.1:{self._port}/metrics")
        say(f"  writing INSERT, MODIFY and REMOVE to {TABLE}; about 1 record in 100 is poison")
        if feed is not None:
            say(f"  from there they go into the Kinesis stream {STREAM}: 1 in 10 twice, 1 in 20 late by up to 2 s")
        say("  Ctrl-C ends the demo" if seconds is None else f"  ends by itself after {seconds:g} s")
        say()
        quiet = asyncio.Event()
        writing = asyncio.create_task(_written(producer, feed, quiet))
        stopping = asyncio.create_task(self._stop.wait())
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        try:
            while not stopping.done() and daemon.returncode is None and (end is None or loop.time() < end):
                await asyncio.wait((stopping, writing), timeout=2.0, return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    writing.result()
                await self._print_progress(producer, sqs)
        finally:
            stopping.cancel()
            quiet.set()
            await writing
        say()
        say("  no more writes; waiting until everything is settled")
        deadline = loop.time() + SETTLE_DEADLINE
        while daemon.returncode is None and loop.time() < deadline:
            await self._collect_dead(sqs)
            if set(producer.changes()) <= {*self._handled(), *self._dead, *late(self._put)}:
                break
            await asyncio.sleep(0.3)
        await self._print_progress(producer, sqs)

    async def _print_progress(self, producer: Producer, sqs: Any) -> None:
        await self._collect_dead(sqs)
        status = await asyncio.to_thread(self._status)
        shards = [shard for shard in status.get("shards", ()) if shard.get("mine")]
        lag = max((shard.get("lag") or 0.0 for shard in shards), default=0.0)
        retries = int(status.get("totals", {}).get("retries", 0))
        say(
            f"  produced={producer.produced:<6} handled={sum(1 for _ in self._handled()):<6} retries={retries:<4} "
            f"dead_lettered={len(self._dead):<3} shards={len(shards)} lag={lag:.1f}s"
        )
        for key, (event, version) in self._dead[self._shown :][:3]:
            say(f"    dead letter: {event} of {key}, version {version} (the document holds the whole record)")
        self._shown = len(self._dead)

    def _status(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/status.json", timeout=2) as answer:
                status: dict[str, Any] = json.load(answer)
                return status
        except (OSError, ValueError):
            return {}  # not up yet

    def _handled(self) -> Iterator[tuple[str, Change]]:
        if not self._journal.exists():
            return
        for line in self._journal.read_text().splitlines():
            key, event, version = json.loads(line)
            yield key, (event, version)

    async def _collect_dead(self, sqs: Any) -> None:
        while True:
            answer = await sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10)
            messages = answer.get("Messages", [])
            for message in messages:
                for record in json.loads(message["Body"])["payload"]["Records"]:
                    self._dead.append(_change_in(record["eventName"], record["dynamodb"]))
                await sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
            if not messages:
                return

    async def _stop_daemon(self, daemon: asyncio.subprocess.Process) -> int:
        if daemon.returncode is None:
            daemon.terminate()
        try:
            async with asyncio.timeout(35):
                return await daemon.wait()
        except TimeoutError:
            daemon.kill()
            return await daemon.wait()


def _change_in(event_name: str, change: Mapping[str, Any]) -> tuple[str, Change]:
    image = change.get("NewImage") or change["OldImage"]
    return change["Keys"]["pk"]["S"], (event_name, int(image["version"]["N"]))


async def _written(producer: Producer, feed: KinesisFeed | None, quiet: asyncio.Event) -> None:
    """Until ``quiet`` is set, and all of it is where the daemon reads it."""
    if feed is None:
        await producer.run(quiet)
        return
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run(done))
        await producer.run(quiet)
        done.set()
