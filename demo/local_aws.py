"""The embedded local AWS: `ministack` as a child process, for ``make demo``, ``make local``, benchmarks and tests.

It lives in a virtual environment of its own because it pins another botocore than aioboto3 does; this module only
knows the path of that environment's interpreter. The server binds to the loopback interface and keeps everything in
memory. It must never outlive its parent: a forgotten server would answer the next run with the last run's data.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from consumer.domain.errors import StreamConsumerError

PYTHON_VARIABLE: Final = "STREAM_CONSUMER_LOCAL_AWS_PYTHON"
SERVICES: Final = ("dynamodb", "dynamodbstreams", "kinesis", "sqs", "sns", "s3")
HEALTH_PATH: Final = "/_ministack/health"
START_DEADLINE: Final = 30.0  # seconds; a warm start takes 0.2 to 0.4
STOP_GRACE: Final = 5.0  # seconds between asking and killing
START_ATTEMPTS: Final = 3  # another process can take a free port before the server binds it

# Runs in the child: ask Linux for a SIGKILL when the parent dies, then become the server. A child process that does
# this itself is safe where a hook between fork and exec is not (the parent has threads).
_CHILD: Final = """
import os, runpy, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9)
except (AttributeError, ImportError, OSError):
    pass
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(0)
sys.argv = ["ministack"]
runpy.run_module("ministack", run_name="__main__", alter_sys=True)
"""


class LocalAwsError(StreamConsumerError):
    """The local AWS cannot be started: its interpreter is missing, or it ended or stayed silent."""

    exit_code = 69


def find_local_aws_python() -> Path:
    """The interpreter that has ministack installed.

    Returns what ``STREAM_CONSUMER_LOCAL_AWS_PYTHON`` names, else ``.venv-aws/bin/python`` beside the pyproject.toml
    of the checkout this code runs from.

    Raises:
        LocalAwsError: there is no such file; the message says what to run.
    """
    named = os.environ.get(PYTHON_VARIABLE, "")
    candidates = [Path(named)] if named else _beside_pyproject(Path(__file__).resolve().parents)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates) or "no checkout found"
    raise LocalAwsError(
        f"the local AWS is not installed (looked for {looked}): "
        f"run 'make demo', 'make local' or 'make test', or set {PYTHON_VARIABLE}"
    )


def _beside_pyproject(parents: Iterable[Path]) -> list[Path]:
    roots = [parent for parent in parents if (parent / "pyproject.toml").is_file()]
    return [root / ".venv-aws" / "bin" / "python" for root in roots]


def free_port() -> int:
    """A TCP port of the loopback interface that is not in use at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class LocalAws:
    """A running local AWS, as a context manager (``with`` or ``async with``).

    ``endpoint`` is the URL for every service; any credentials are accepted.

    The process is started from the calling thread, and on Linux it ends when that thread does: enter the context
    in the main thread or another one that lives at least as long as the block.

    Args:
        python: interpreter of the environment that has ministack.
        port: of the loopback interface; 0 takes a free one.

    Raises (on entry):
        LocalAwsError: the port is in use, or the server ended or stayed silent for ``START_DEADLINE``.
    """

    def __init__(self, python: Path, *, port: int = 0) -> None:
        self._python = python
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.endpoint = ""

    def __enter__(self) -> Self:
        for attempt in range(1, START_ATTEMPTS + 1):
            self._spawn()
            try:
                self._wait_until_healthy()
                break
            except BaseException as error:
                if self._is_final(error, attempt):
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        for attempt in range(1, START_ATTEMPTS + 1):
            self._spawn()  # in this thread, not in a pool's: the child dies with the thread that started it
            try:
                await asyncio.to_thread(self._wait_until_healthy)
                break
            except BaseException as error:
                if self._is_final(error, attempt):
                    raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

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

    def _spawn(self) -> None:
        if self._port and not _is_free(self._port):  # otherwise the health page of another server would answer
            raise LocalAwsError(f"port {self._port} is in use")
        port = self._port or free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AWS_"))}
        self._process = subprocess.Popen(
            [str(self._python), "-c", _CHILD, str(os.getpid())],
            env={
                **inherited,
                "BIND_HOST": "127.0.0.1",  # its default is every interface
                "GATEWAY_PORT": str(port),
                "SERVICES": ",".join(SERVICES),
                "LOG_LEVEL": "WARNING",
            },
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the daemon; the server goes last
        )

    def _is_final(self, error: BaseException, attempt: int) -> bool:
        """Clean up, and try again only when the child ended by itself, as it does when its port was taken meanwhile."""
        ended = self._process is not None and self._process.poll() is not None
        self.stop()
        return attempt == START_ATTEMPTS or not ended or not isinstance(error, LocalAwsError)

    def _wait_until_healthy(self) -> None:
        """Return when the health page answers; LocalAwsError when the child ended or the deadline is over."""
        deadline = time.monotonic() + START_DEADLINE
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for loopback
        while True:
            process = self._process
            if process is None:
                raise LocalAwsError("the local AWS was stopped while it started")
            code = process.poll()
            if code is not None:
                raise LocalAwsError(f"the local AWS ended with code {code}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise LocalAwsError(f"the local AWS did not answer within {START_DEADLINE:g} s: {self._last_words()}")
            try:
                with opener.open(self.endpoint + HEALTH_PATH, timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-5:]) or "it said nothing"
