"""An hour of two real daemons at default settings under faults of every kind, one after the other.

    python -m tests.e2e.soak_hour [--minutes 60] [--rate 60]

Nothing may be lost, every key keeps its order, and neither memory nor descriptors grow. A line a minute, a verdict at
the end, exit code 1 when something does not hold. Everything is on the loopback interface, and no process outlives it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from demo.local_aws import LocalAws, find_local_aws_python
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, closing, wait_until
from tests.e2e.soak_ledger import NEVER, Effects, Footprint, Letters, traced
from tests.e2e.soak_weather import Record, Upstream, Weather, Writer
from tests.support.reshard_proxy import ProxyThread

SHARDS = 4
MOST_GROWTH = 2.0  # MB an hour
MOST_MORE_DESCRIPTORS = 5
JUDGED_FROM = 30.0  # minutes: in a shorter run memory has not settled, and its slope is only reported
SAMPLES = 15  # at least, in a short run
DRAIN = 240.0  # seconds until everything must be handled once the faults are over
PATIENCE = 20.0  # seconds without progress until what is missing is looked for among what was trimmed
# Linux kills the daemon when the soak is killed without a word. Exec keeps the process id.
TIED = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


class DefaultFleet(Fleet):
    """Daemons with no more settings than they need here."""

    def config(self, **overrides: Any) -> dict[str, Any]:
        services = ("dynamodb", "dynamodb_streams", "sqs")
        return {
            "application": f"app-{self.table}",
            "aws": {"region": "us-east-1", "endpoints": dict.fromkeys(services, self.endpoint)},
            "source": {"table": self.table, "on_gap": "continue"},  # the proxy trims, and nobody decides
            "handler": {"target": "soak_handler:handle", "path": str(Path(__file__).parent), "timeout": "5s"},
            "retry": {"max_retry_attempts": 4},
            "on_failure": {"destination": self.queue_arn},
            "leases": {"table": f"leases-{self.table}", "create_table": True},
            **overrides,
        }


class Soak:
    """The run itself: two daemons, a writer, the weather, and what is seen of them."""

    def __init__(self, aws: Aws, proxy: ProxyThread, fleet: Fleet, url: str, *, minutes: float, rate: float) -> None:
        self.minutes = minutes
        self.aws, self.fleet = aws, fleet
        self.upstream = Upstream(aws, fleet.table)
        self.writer = Writer(aws, fleet.table, rate)
        self.weather = Weather(proxy, self.upstream, minutes * 60)
        self.effects = Effects(fleet.journal_path)
        self.letters = Letters(aws, url)
        self.footprints: list[Footprint] = []

    def run(self) -> list[str]:
        """Everything from the start of the daemons to their end. Returns what does not hold."""
        workers = [self.fleet.start(name, under=TIED) for name in ("a", "b")]
        self.footprints = [Footprint(worker) for worker in workers]
        wait_until(lambda: all(len(worker.owned()) == SHARDS // 2 for worker in workers), 60, "both have their share")
        with self._background():
            self._watch()
        lost, trimmed = self._settle()
        early = [worker.name for worker in workers if worker.process.poll() is not None]
        for worker in workers:
            worker.send(signal.SIGTERM)
        codes = {worker.name: worker.wait(60) for worker in workers}
        return [f"{name} ended by itself" for name in early] + self._verdict(lost, trimmed, codes)

    @contextmanager
    def _background(self) -> Iterator[None]:
        """The writer and the weather, each in a thread. Their errors are raised here."""
        over = threading.Event()
        with ThreadPoolExecutor(2) as threads:
            self._running: list[Future[None]] = [threads.submit(one.run, over) for one in (self.writer, self.weather)]
            try:
                yield
            finally:
                over.set()
        for future in self._running:
            future.result()

    def _watch(self) -> None:
        started = time.monotonic()
        pause = min(60.0, self.minutes * 60 / SAMPLES)
        due = started + pause
        while (now := time.monotonic()) < started + self.minutes * 60:
            time.sleep(min(1.0, max(0.0, due - now)))
            self.effects.read()
            if any(future.done() for future in self._running):
                return  # it failed; why is raised when the other has ended
            if time.monotonic() < due:
                continue
            due += pause
            self.letters.read()
            seconds = time.monotonic() - started
            tracks = ", ".join(one.sample(seconds / 3600) for one in self.footprints)
            open_ = self.writer.count - self.effects.distinct - len(self.letters.records)
            say(
                f"{seconds / 60:5.1f} min: written {self.writer.count}, handled {self.effects.distinct}, "
                f"repeats {self.effects.count - self.effects.distinct - self.effects.stale}, "
                f"stale {self.effects.stale}, late {self.effects.late}, letters {len(self.letters.records)}, "
                f"open or trimmed {open_}; {tracks}; {self.weather.now}"
            )

    def _missing(self) -> set[Record]:
        self.effects.read()
        self.letters.read()
        return self.writer.expected() - self.effects.handled() - self.letters.records.keys()

    def _settle(self) -> tuple[set[Record], set[Record]]:
        """Wait until everything is handled. What is lost, and what was trimmed and has a trace."""
        deadline = time.monotonic() + DRAIN
        missing, changed, trimmed = self._missing(), time.monotonic(), set[Record]()
        while missing - trimmed and time.monotonic() < deadline:
            time.sleep(1)
            before, missing = missing, self._missing()
            if missing != before:
                changed = time.monotonic()
            elif time.monotonic() > changed + PATIENCE:
                trimmed = traced(self.aws, self.fleet, self.upstream, self.weather.trims, missing, self.effects)
                changed = time.monotonic()
        return missing - trimmed, trimmed & missing

    def _verdict(self, lost: set[Record], trimmed: set[Record], codes: dict[str, int]) -> list[str]:
        effects, letters = self.effects, self.letters.records
        wrong: list[str] = []

        def holds(condition: object, otherwise: str) -> None:
            if not condition:
                wrong.append(otherwise)

        say(f"turns of the weather: {dict(self.weather.turns)}")
        say(f"asked of the handler: {dict(self.writer.asked)}; effects by daemon: {dict(effects.by_worker)}")
        innocent = letters.keys() - self.writer.poison
        say(
            f"letters: {len(letters)} records ({letters.total() - len(letters)} repeated), {len(innocent)} of them not "
            f"poison, {len(letters.keys() & effects.handled())} of them also handled; trimmed with a trace: "
            f"{len(trimmed)} in {len(self.weather.trims)} trims"
        )
        ended_wrong = effects.ended_out_of_order()
        holds(not lost, f"{len(lost)} lost, such as {sorted(lost)[:5]}")
        holds(not effects.late, f"{effects.late} handled first after a later version of their key")
        holds(not ended_wrong, f"{ended_wrong} last effects out of order")
        holds(self.writer.poison <= letters.keys() | trimmed, "poison without a letter")
        for one in self.footprints:
            name, slope, (middle, last) = one.worker.name, one.slope(), one.descriptor_thirds()
            say(
                f"{name}: RSS {slope:+.2f} MB/h over the second two thirds ({one.alone[0]:.1f} MB first, "
                f"{one.alone[-1]:.1f} last, {max(one.alone):.1f} most; with children {one.family[0]:.0f}, "
                f"{one.family[-1]:.0f}, {max(one.family):.0f}); descriptors at most {middle} in the middle third, "
                f"{last} in the last; exit code {codes[name]}"
            )
            holds(self.minutes < JUDGED_FROM or slope < MOST_GROWTH, f"{name} grows by {slope:.2f} MB/h")
            holds(last <= middle + MOST_MORE_DESCRIPTORS, f"{name} has more descriptors: {middle}, then {last}")
            holds(codes[name] == 0, f"{name} ended with {codes[name]}")
            events = one.worker.events()
            loud = Counter(e["event"] for e in events if e["level"] in ("warning", "error", "critical"))
            say(f"{name} logged: {dict(loud.most_common())}")
            bugs = {event: count for event, count in loud.items() if event in NEVER}
            holds(not bugs, f"{name} logged {bugs}")
            text = one.worker.log.read_text()
            holds("Traceback (most recent call last)" not in text, f"{name} has a traceback in its log")
        return wrong


def say(line: str) -> None:
    """Print at once: the log of a run in the background is read while it runs."""
    print(line, flush=True)


def _end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.soak_hour", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="how long records are written (default 60)")
    parser.add_argument("--rate", type=float, default=60.0, help="records a second (default 60)")
    parser.add_argument("--keep", type=Path, help="folder for logs and journal, which stay (default: a temporary one)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # nothing of the user's own AWS settings
    try:
        with ExitStack() as stack:
            folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            folder.mkdir(parents=True, exist_ok=True)
            aws = Aws(stack.enter_context(LocalAws(find_local_aws_python())).endpoint)
            proxy = stack.enter_context(ProxyThread(aws.endpoint, shards=SHARDS))
            url, arn = aws.queue()
            fleet = stack.enter_context(closing(DefaultFleet(proxy.endpoint, folder, aws.table(), arn)))
            fleet.journal_path.unlink(missing_ok=True)  # of an earlier run in the same folder
            wrong = Soak(aws, proxy, fleet, url, minutes=options.minutes, rate=options.rate).run()
    except KeyboardInterrupt:
        say("interrupted: no verdict")
        return 130
    say(f"verdict: {'FAILED: ' + '; '.join(wrong) if wrong else 'everything holds, lost 0'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
