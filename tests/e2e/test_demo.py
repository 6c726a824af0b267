"""``make demo`` and ``make local``, as a newcomer runs them."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.fleet import ROOT

VERDICT = re.compile(r"demo: produced=(\d+) handled=(\d+) dead_lettered=(\d+) lost=0 out_of_order=0")
PLAIN = {**{name: value for name, value in os.environ.items() if not name.startswith("AWS_")}, "PYTHONPATH": str(ROOT)}
# A user's own settings, which must not matter.
WITH_AWS_SETTINGS = {**PLAIN, "AWS_PROFILE": "no-such-profile", "AWS_REGION": "us-west-2"}


@contextmanager
def started(
    *command: str, log: Path, environment: Mapping[str, str] = WITH_AWS_SETTINGS
) -> Iterator[subprocess.Popen[bytes]]:
    """``python command`` from the checkout, its output in ``log``; killed at the end if it still runs."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(log: Path, pattern: str, seconds: float = 60.0) -> None:
    """Poll ``log`` until ``pattern`` is in it."""
    deadline = time.monotonic() + seconds
    while not re.search(pattern, text := log.read_text()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {pattern} in\n{text}"
        time.sleep(0.05)


def children_of(process: subprocess.Popen[bytes]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def assert_good(log: Path) -> None:
    last = log.read_text().splitlines()[-1]
    found = VERDICT.fullmatch(last)
    assert found, last
    produced, handled, dead = map(int, found.groups())
    assert produced == handled + dead
    assert produced > 0


def test_the_demo_ends_by_itself_with_a_verdict_and_leaves_no_file(tmp_path: Path) -> None:
    log, temporary = tmp_path / "log", tmp_path / "temporary"
    temporary.mkdir()
    environment = {**WITH_AWS_SETTINGS, "TMPDIR": str(temporary)}
    with started("-m", "demo", "--seconds", "3", log=log, environment=environment) as demo:
        wait_for(log, r"produced=[1-9]")
        assert list(temporary.glob("stream-consumer-demo-*"))
        assert demo.wait(100) == 0, log.read_text()
    assert_good(log)
    assert not list(temporary.glob("stream-consumer-demo-*"))


def test_ctrl_c_ends_the_demo_with_a_verdict_and_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started("-m", "demo", log=log) as demo:
        wait_for(log, r"produced=[1-9]")
        children = children_of(demo)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(100) == 0, log.read_text()
    assert_good(log)
    assert len(children) == 2  # the local AWS and the daemon
    assert not [pid for pid in children if runs(pid)]


@pytest.mark.soak
def test_the_demo_with_kinesis_skips_what_came_after_a_newer_change_and_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started("-m", "demo", "--seconds", "8", "--source", "kinesis", log=log) as demo:
        assert demo.wait(100) == 0, log.read_text()
    *_, again, skipped, last = log.read_text().splitlines()
    found = VERDICT.fullmatch(last)
    assert found, log.read_text()
    produced, handled, dead = map(int, found.groups())
    left_out = re.fullmatch(
        r"  skipped, because a newer change of their item was in the stream before them: (\d+)", skipped
    )
    assert left_out, skipped
    assert produced == handled + dead + int(left_out[1])
    assert int(left_out[1]) > 0
    assert again == "  records handled more than once: 0"


@pytest.mark.parametrize(("source", "config"), [("dynamodb", "local-emulator"), ("kinesis", "local-kinesis")])
def test_the_sample_for_emulators_runs_on_make_local(tmp_path: Path, source: str, config: str) -> None:
    """With what it prints and nothing else; only the port of the status page is another, for other tests' sake."""
    sample = tmp_path / "config" / f"{config}.yaml"
    sample.parent.mkdir()
    sample.write_text((ROOT / "config" / f"{config}.yaml").read_text() + "http: {port: 0}\n")
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    log, daemon_log = tmp_path / "local.log", tmp_path / "daemon.log"
    with started("-m", "demo.local", "--port", "0", "--source", source, log=log) as local:
        wait_for(log, "put_item")
        exports = dict(re.findall(r"^  export (\w+)=(.*)$", log.read_text(), re.MULTILINE))
        *_, run, put = log.read_text().splitlines()
        assert run.split() == [".venv/bin/stream-consumer", "run", "--config", f"config/{config}.yaml"]
        as_told = {**PLAIN, **exports}
        with started("-m", "consumer", "run", "--config", str(sample), log=daemon_log, environment=as_told) as daemon:
            wait_for(daemon_log, "daemon.started")
            with started(*shlex.split(put)[1:], log=tmp_path / "put.log", environment=as_told) as putting:
                assert putting.wait(60) == 0, (tmp_path / "put.log").read_text()
            wait_for(daemon_log, r"INSERT \{'pk': 'a'\}")
            daemon.terminate()
            assert daemon.wait(40) == 0, daemon_log.read_text()
        children = children_of(local)
        local.send_signal(signal.SIGINT)
        assert local.wait(20) == 0
    assert len(children) == 1
    assert not runs(children[0])


def test_make_local_without_a_table_and_a_port_that_is_in_use(tmp_path: Path) -> None:
    log, second_log = tmp_path / "log", tmp_path / "second"
    with started("-m", "demo.local", "--port", "0", "--table", "", log=log) as local:
        wait_for(log, "AWS_SECRET_ACCESS_KEY")
        assert "table" not in log.read_text()
        port = re.findall(r"127\.0\.0\.1:(\d+)", log.read_text())[0]
        with started("-m", "demo.local", "--port", port, log=second_log) as second:
            assert second.wait(30) == 69
        local.terminate()
        assert local.wait(20) == 0
    assert second_log.read_text() == f"local AWS: port {port} is in use\n"
