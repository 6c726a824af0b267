"""``make demo``: the real daemon on an embedded local AWS, through the real network client.

Starts the local AWS, creates a table with a stream and a dead-letter queue, writes a live mix with some poison, runs
the daemon as a process of its own, shows what happens, stops everything, and judges: nothing lost or out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from consumer.aws.session import AwsSession
from demo.local_aws import LocalAws, find_local_aws_python, free_port
from demo.producer import Change, Producer
from demo.verdict import Verdict, judge

TABLE, QUEUE, REGION = "demo-orders", "demo-orders-dlq", "eu-west-1"
SETTLE_DEADLINE = 60.0  # seconds that the daemon gets to catch up after the last write

CONFIG = """\
application: demo-projector
aws:
  region: {region}
  endpoints: {{dynamodb: {url}, dynamodb_streams: {url}, sqs: {url}}}
source: {{table: {table}}}
handler: {{kind: lambda, target: "demo.demo_handler:handler", processes: 2, timeout: 10s}}
batch: {{batch_size: 25, parallelization_factor: 8}}
retry: {{max_retry_attempts: 1, bisect_on_error: true, backoff: {{initial: 100ms, max: 1s}}}}
on_failure: {{destination: "{queue_arn}"}}
leases: {{table: demo-leases, create_table: true, duration: 5s}}
http: {{port: {port}}}
logging: {{level: info, format: json}}
"""


def say(text: str = "") -> None:
    print(text, flush=True)


class Demo:
    """One run of the demo; ``folder`` holds the config, the daemon's log and the handler's journal."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self._folder = folder
        self._port = free_port()
        self._journal = folder / "journal.jsonl"
        self._log = folder / "daemon.log"
        self._dead: list[tuple[str, Change]] = []
        self._shown = 0
        self.stop = asyncio.Event()

    async def run(self, seconds: float | None) -> Verdict:
        urls = dict.fromkeys(("dynamodb", "dynamodb_streams", "sqs"), self._url)
        async with AwsSession(REGION, urls) as session:
            dynamodb, sqs = await session.client("dynamodb"), await session.client("sqs")
            await self._create_table(dynamodb)
            self._queue = (await sqs.create_queue(QueueName=QUEUE))["QueueUrl"]
            attributes = await sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])
            config = self._write_config(attributes["Attributes"]["QueueArn"])
            producer = Producer(dynamodb, TABLE)
            daemon = await self._start_daemon(config)
            try:
                await self._show(producer, sqs, daemon, seconds)
            finally:
                exit_code = await self._stop_daemon(daemon)
            await self._collect_dead(sqs)
            say(f"  daemon stopped on SIGTERM with exit code {exit_code}; its log: {self._log}")
            return judge(producer.expected, self._handled(), self._dead)

    async def _create_table(self, dynamodb: Any) -> None:
        await dynamodb.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def _write_config(self, queue_arn: str) -> Path:
        config = self._folder / "demo.yaml"
        config.write_text(
            CONFIG.format(region=REGION, url=self._url, table=TABLE, queue_arn=queue_arn, port=self._port)
        )
        return config

    async def _start_daemon(self, config: Path) -> asyncio.subprocess.Process:
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
                env={**os.environ, "DEMO_JOURNAL": str(self._journal)},
                start_new_session=True,  # Ctrl-C is for the demo: it stops the daemon itself
            )

    async def _show(
        self, producer: Producer, sqs: Any, daemon: asyncio.subprocess.Process, seconds: float | None
    ) -> None:
        say(f"  status page  http://127.0.0.1:{self._port}/    metrics  http://127.0.0.1:{self._port}/metrics")
        say(f"  writing INSERT, MODIFY and REMOVE to {TABLE}; about 1 record in 100 is poison")
        say("  Ctrl-C ends the demo" if seconds is None else f"  ends by itself after {seconds:g} s")
        say()
        quiet = asyncio.Event()
        writing = asyncio.create_task(producer.run(quiet))
        stopping = asyncio.create_task(self.stop.wait())
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
            if len(set(self._handled())) + len(set(self._dead)) >= producer.produced:
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
                    change = record["dynamodb"]
                    image = change.get("NewImage") or change["OldImage"]
                    self._dead.append((change["Keys"]["pk"]["S"], (record["eventName"], int(image["version"]["N"]))))
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


async def main(seconds: float | None) -> int:
    """Run the demo; the exit code is 0 when nothing was lost or out of order."""
    folder = Path(tempfile.mkdtemp(prefix="stream-consumer-demo-"))
    os.environ.update(
        AWS_ACCESS_KEY_ID="demo",
        AWS_SECRET_ACCESS_KEY="demo",
        AWS_EC2_METADATA_DISABLED="true",
    )
    say("dynamodb-stream-consumer demo: the real daemon on an embedded local AWS")
    with LocalAws(find_local_aws_python()) as server:
        demo = Demo(server.endpoint, folder)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, demo.stop.set)
        verdict = await demo.run(seconds)
    say()
    say(f"  records handled more than once: {verdict.again}")
    say(verdict.line)
    return 0 if verdict.lost == 0 and verdict.out_of_order == 0 else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="end by itself after that time")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main(parser.parse_args().seconds)))
