"""The local Kinesis servers of the tests: kinesis-local and kinesalite as child processes.

    with KinesisServer(KINESALITE) as server:
        ...  # server.endpoint

They are programs for Node.js, which ``make test`` puts in ``.kinesis-servers`` where Node.js is. What each of them is
good for is shown in ``tests/integration/kinesis``. Neither throttles. They keep everything in memory, listen on the
loopback interface only (``loopback_only.js``, as one of them has no option for it), and die with their parent.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / ".kinesis-servers"
PRELOAD: Final = Path(__file__).with_name("loopback_only.js")
START_DEADLINE: Final = 60.0  # seconds; kinesis-local takes 1 s on an idle machine and 12 s on a busy one
NODE_DEADLINE: Final = 30.0  # seconds for a question to Node.js itself
STOP_GRACE: Final = 5.0  # seconds between asking and killing
ACCOUNT: Final = "000000000000"

# Runs in the child: ask Linux for a SIGKILL when the parent dies, which outlasts the exec that follows.
_CHILD: Final = """
import os, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
except (AttributeError, ImportError, OSError):
    pass
if os.getppid() != int(sys.argv[1]):
    sys.exit(0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_KEPT: Final = ("PATH", "LD_LIBRARY_PATH")  # of the environment; both servers take settings from it


class NotInstalled(Exception):
    """The servers are not there; the message says what to run."""


class ServerError(Exception):
    """A server ended or stayed silent while it started; the message has its last words."""


@dataclass(frozen=True)
class Program:
    """A server: its script below ``node_modules``, and the port that it asks for to serve HTTP."""

    name: str
    script: str
    asked_port: int
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


_MODULES: Final = FOLDER / "node_modules"

# Changes of a stream take long enough for its state UPDATING to be seen, and no longer.
KINESIS_LOCAL: Final = Program(
    name="kinesis-local",
    script="kinesis-local/main.js",
    asked_port=4568,
    environment={
        "KINESIS_MOCK_PLAIN_PORT": "4568",
        "KINESIS_MOCK_TLS_PORT": "4567",  # cannot be turned off
        "KINESIS_MOCK_CERT_PATH": str(_MODULES / "kinesis-local" / "server.json"),
        "CREATE_STREAM_DURATION": "20ms",
        "DELETE_STREAM_DURATION": "20ms",
        "SPLIT_SHARD_DURATION": "100ms",
        "MERGE_SHARDS_DURATION": "100ms",
        "UPDATE_SHARD_COUNT_DURATION": "100ms",
        "SHARD_LIMIT": "5000",
        "AWS_ACCOUNT_ID": ACCOUNT,
        "SHOULD_PERSIST_DATA": "false",
        "LOAD_DATA_IF_EXISTS": "false",
        "LOG_LEVEL": "ERROR",
    },
)
KINESALITE: Final = Program(
    name="kinesalite",
    script="kinesalite/cli.js",
    asked_port=4567,
    arguments=(
        *("--port", "4567", "--shardLimit", "5000"),
        *("--createStreamMs", "20", "--deleteStreamMs", "20", "--updateStreamMs", "100"),
    ),
    environment={"AWS_ACCOUNT_ID": ACCOUNT},
)


class KinesisServer:
    """A running server, as a context manager. Enter it in a thread that lives at least as long as the block.

    ``endpoint`` is its URL; any credentials and regions are accepted.

    Raises (on entry):
        NotInstalled: there is no Node.js, or the packages are not in ``FOLDER``.
        ServerError: it ended, or did not answer within ``START_DEADLINE``.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        node = _find_node()
        try:
            self._start(node)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id; RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.program.name} is not running")
        return self._process.pid

    def stop(self) -> None:
        """Ask the server to end, then kill it. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self, node: str) -> None:
        deadline = time.monotonic() + START_DEADLINE
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as report:
            try:
                self._spawn(node, writing)
            finally:
                os.close(writing)  # so that the report ends with the child
            self.endpoint = f"http://127.0.0.1:{self._reported_port(report, deadline)}"
        while not self._answers():
            self._check_alive(deadline)
            time.sleep(0.02)

    def _spawn(self, node: str, report: int) -> None:
        program = self.program
        command = [node, "--require", str(PRELOAD), str(_MODULES / program.script), *program.arguments]
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(os.getpid()), *command],
            cwd=FOLDER,
            env={**kept, **program.environment, "REPORT_FD": str(report)},
            pass_fds=[report],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests; the server goes last
        )

    def _reported_port(self, report: IO[bytes], deadline: float) -> int:
        text = b""
        while True:
            self._check_alive(deadline)
            ready, _, _ = select.select([report], [], [], max(0.0, deadline - time.monotonic()))
            if ready:
                said = report.read(4096)
                if not said and self._process is not None:  # it ends: no silent one
                    with suppress(subprocess.TimeoutExpired):
                        self._process.wait(STOP_GRACE)
                text += said
            for line in text.splitlines(keepends=True):
                asked, _, given = line.partition(b" ")
                if line.endswith(b"\n") and int(asked) == self.program.asked_port:
                    return int(given)

    def _check_alive(self, deadline: float) -> None:
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise ServerError(f"{self.program.name} ended with code {code}: {self._last_words()}")
        if time.monotonic() > deadline:
            raise ServerError(f"{self.program.name} did not answer in {START_DEADLINE:g} s: {self._last_words()}")

    def _answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for loopback
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": "Kinesis_20131202.ListStreams",
            "X-Amz-Date": "20200101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host, Signature=0",
        }
        request = urllib.request.Request(self.endpoint, data=b"{}", headers=headers)
        try:
            with opener.open(request, timeout=10) as answer:
                return "StreamNames" in json.load(answer)
        except (urllib.error.URLError, OSError):
            return False

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-10:]) or "it said nothing"


def _find_node() -> str:
    """The program itself: what is on the PATH may be a version manager's, which starts it as a process of its own."""
    asked = None
    if shutil.which("node"):
        asked = subprocess.run(
            ["node", "-p", "process.execPath"], capture_output=True, text=True, timeout=NODE_DEADLINE
        )
    if asked is None or asked.returncode != 0:
        missing = "there is no Node.js that runs"
    elif not (FOLDER / ".ready").is_file():
        missing = f"they are not in {FOLDER.name}"
    else:
        return asked.stdout.strip()
    raise NotInstalled(
        f"the local Kinesis servers cannot be used: {missing} "
        f"('make {FOLDER.name}/.ready' installs them where Node.js 18 or newer and npm are)"
    )
