"""``make local``: the embedded AWS alone, for your own handler, on one port until Ctrl-C.

Creates a table with a stream, a dead-letter queue and a bucket for large letters, prints what to export and what to run
next. With Kinesis as the source there is a Kinesis stream, too, into which the changes of the table go as DynamoDB puts
them there. All is in memory and gone at the end. Exit code 0; 69 when the server cannot be started, for example because
the port is in use.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from consumer.aws.session import AwsSession
from demo.demo import SERVICES as DEMO_SERVICES
from demo.demo import SOURCES, Kind, say
from demo.kinesis_feed import KinesisFeed
from demo.local_aws import SERVICES, LocalAws, LocalAwsError, find_local_aws_python
from demo.resources import (
    CREDENTIALS,
    REGION,
    create_bucket,
    create_queue,
    create_stream,
    create_table,
    forget_real_aws,
    table_stream,
)

PORT = 4566  # where local AWS servers usually listen
CLIENTS = (*DEMO_SERVICES, "s3")
CONFIGS: dict[Kind, str] = {"dynamodb": "config/local-emulator.yaml", "kinesis": "config/local-kinesis.yaml"}
PUT = "import boto3; boto3.client('dynamodb').put_item(TableName='{table}', Item={{'pk': {{'S': 'a'}}}})"


async def main(port: int, table: str, kind: Kind) -> int:
    """Serve until SIGINT or SIGTERM; ``port`` 0 takes a free one, an empty ``table`` creates none."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    forget_real_aws()
    async with LocalAws(find_local_aws_python(), port=port) as server:
        if not table:
            _explain(server.endpoint, table, kind)
            await stop.wait()
            return 0
        async with _created(server.endpoint, table, kind) as feed, asyncio.TaskGroup() as group:
            if feed is not None:
                group.create_task(feed.run(stop))
            _explain(server.endpoint, table, kind)
            await stop.wait()
    return 0


@asynccontextmanager
async def _created(endpoint: str, table: str, kind: Kind) -> AsyncIterator[KinesisFeed | None]:
    """A table and a queue, and what puts the table's changes into a Kinesis stream, if that is the source."""
    async with AwsSession(REGION, dict.fromkeys(CLIENTS, endpoint)) as session:
        dynamodb = await session.client("dynamodb")
        await create_table(dynamodb, table)
        await create_queue(await session.client("sqs"), f"{table}-dlq")
        await create_bucket(await session.client("s3"), f"{table}-letters")
        if kind != "kinesis":
            yield None
            return
        kinesis, streams = await session.client("kinesis"), await session.client("dynamodbstreams")
        await create_stream(kinesis, f"{table}-changes")
        yield KinesisFeed(table_stream(streams, dynamodb, table), kinesis, f"{table}-changes")


def _explain(endpoint: str, table: str, kind: Kind) -> None:
    exports = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, **CREDENTIALS}
    if table:
        exports["TABLE"] = table
    say(f"local AWS on {endpoint} ({', '.join(SERVICES)}), in memory, until Ctrl-C")
    say("\nIn another terminal:\n")
    for name, value in exports.items():
        say(f"  export {name}={value}")
    if table:
        there = [f"a table {table} (key pk, a stream)", f"a queue {table}-dlq", f"a bucket {table}-letters"]
        if kind == "kinesis":
            there.insert(1, f"a Kinesis stream {table}-changes, into which the changes of the table go")
        say(f"\nThere are {', '.join(there[:-1])} and {there[-1]}. Run the daemon, then write:\n")
        say(f"  .venv/bin/stream-consumer run --config {CONFIGS[kind]}")
        say(f'  .venv/bin/python -c "{PUT.format(table=table)}"')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo.local", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 takes a free one")
    parser.add_argument("--table", default="orders", help="table to create, default orders; empty for none")
    parser.add_argument("--source", choices=SOURCES, default="dynamodb", help="what the daemon will read")
    given = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(given.port, given.table, given.source)))
    except LocalAwsError as error:
        say(f"local AWS: {error}")
        sys.exit(error.exit_code)
