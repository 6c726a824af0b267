"""``make local``: the embedded AWS alone, for your own handler, on one port until Ctrl-C.

Creates a table with a stream and a dead-letter queue, prints what to export and what to run next. Everything is in
memory and gone at the end. Exit code 0; 69 when the server cannot be started, for example because the port is in use.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

from consumer.aws.session import AwsSession
from demo.demo import say
from demo.local_aws import SERVICES, LocalAws, LocalAwsError, find_local_aws_python
from demo.resources import CREDENTIALS, REGION, create_queue, create_table, forget_real_aws

PORT = 4566  # where local AWS servers usually listen
CONFIG = "config/local-emulator.yaml"
PUT = "import boto3; boto3.client('dynamodb').put_item(TableName='{table}', Item={{'pk': {{'S': 'a'}}}})"


async def main(port: int, table: str) -> int:
    """Serve until SIGINT or SIGTERM; ``port`` 0 takes a free one, an empty ``table`` creates none."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    forget_real_aws()
    async with LocalAws(find_local_aws_python(), port=port) as server:
        if table:
            await _create(server.endpoint, table)
        _explain(server.endpoint, table)
        await stop.wait()
    return 0


async def _create(endpoint: str, table: str) -> None:
    async with AwsSession(REGION, dict.fromkeys(("dynamodb", "sqs"), endpoint)) as session:
        await create_table(await session.client("dynamodb"), table)
        await create_queue(await session.client("sqs"), f"{table}-dlq")


def _explain(endpoint: str, table: str) -> None:
    exports = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, **CREDENTIALS}
    if table:
        exports["TABLE"] = table
    say(f"local AWS on {endpoint} ({', '.join(SERVICES)}), in memory, until Ctrl-C")
    say("\nIn another terminal:\n")
    for name, value in exports.items():
        say(f"  export {name}={value}")
    if table:
        say(f"\nThere are a table {table} (key pk, a stream) and a queue {table}-dlq. Run the daemon, then write:\n")
        say(f"  .venv/bin/stream-consumer run --config {CONFIG}")
        say(f'  .venv/bin/python -c "{PUT.format(table=table)}"')


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo.local", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 takes a free one")
    parser.add_argument("--table", default="orders", help="table to create, default orders; empty for none")
    given = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(given.port, given.table)))
    except LocalAwsError as error:
        say(f"local AWS: {error}")
        sys.exit(error.exit_code)
