"""``make demo``: starts the local AWS, runs the demo until Ctrl-C or for ``--seconds``, and ends with its verdict.

Exit code 0 when nothing was lost or handled out of order, else 1; 69 when the local AWS cannot be started.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from demo.demo import SOURCES, Demo, Kind, say
from demo.local_aws import LocalAws, LocalAwsError, find_local_aws_python
from demo.resources import forget_real_aws


async def main(seconds: float | None, kind: Kind) -> int:
    """Run the demo; the exit code."""
    forget_real_aws()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    say("dynamodb-stream-consumer demo: the real daemon on an embedded local AWS")
    async with LocalAws(find_local_aws_python()) as server:
        folder = Path(tempfile.mkdtemp(prefix="stream-consumer-demo-"))
        verdict = await Demo(server.endpoint, folder, stop, kind).run(seconds)
    say()
    say(f"  records handled more than once: {verdict.again}")
    if kind == "kinesis":
        say(f"  skipped, because a newer change of their item was in the stream before them: {verdict.superseded}")
    is_good = verdict.lost == 0 and verdict.out_of_order == 0
    if is_good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"  the log, the journal and the config of the daemon are in {folder}")
    say(verdict.line)
    return 0 if is_good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=None, help="end by itself after that time")
    parser.add_argument("--source", choices=SOURCES, default="dynamodb", help="what the daemon reads")
    given = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(given.seconds, given.source)))
    except LocalAwsError as error:
        say(f"demo: {error}")
        sys.exit(error.exit_code)
