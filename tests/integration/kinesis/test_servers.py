"""The local Kinesis servers as processes: where they listen, how they end, and what is said when they are not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import kinesis_fixtures, kinesis_servers
from tests.support.kinesis_servers import KINESALITE, ROOT, KinesisServer, NotInstalled, ServerError

LISTENING = "0A"
IPV4_LOOPBACK = "0100007F"  # as /proc writes 127.0.0.1 on a little-endian machine


def listens_on(pid: int) -> list[str]:
    """The addresses of the sockets of a process that wait for connections, as ``/proc`` writes them."""
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()]
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
    return [row[1].partition(":")[0] for row in rows if row[3] == LISTENING and row[9] in sockets]


@pytest.mark.skipif(sys.platform != "linux" or sys.byteorder != "little", reason="reads /proc as Linux writes it")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("kinesis_local", 2, marks=pytest.mark.xdist_group("kinesis-local")),
        pytest.param("kinesalite", 1, marks=pytest.mark.xdist_group("kinesalite")),
    ],
)
def test_they_listen_on_the_loopback_interface_only(request: pytest.FixtureRequest, name: str, count: int) -> None:
    server: KinesisServer = request.getfixturevalue(name)
    assert listens_on(server.pid) == [IPV4_LOOPBACK] * count
    assert server.endpoint.startswith("http://127.0.0.1:")


PARENT = """
import sys
from tests.support.kinesis_servers import KINESALITE, KinesisServer
with KinesisServer(KINESALITE) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills it")
def test_a_server_dies_with_its_parent(kinesalite: KinesisServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while (outlived := is_alive(pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if outlived:
        os.kill(pid, signal.SIGKILL)
    assert not outlived


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_with_the_block(kinesalite: KinesisServer) -> None:
    with KinesisServer(KINESALITE) as server:
        pid = server.pid
        assert is_alive(pid)
    assert not is_alive(pid)
    with pytest.raises(RuntimeError, match="kinesalite is not running"):
        _ = server.pid


def test_the_error_of_one_that_does_not_start_has_its_last_words(kinesalite: KinesisServer) -> None:
    broken = KinesisServer(replace(KINESALITE, script="kinesalite/nothing.js"))
    with pytest.raises(ServerError, match=r"kinesalite ended with code 1: .*Cannot find module"), broken:
        pass


def test_one_that_opens_another_port_than_it_should_is_not_waited_for_longer(
    kinesalite: KinesisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinesis_servers, "START_DEADLINE", 0.5)
    silent = KinesisServer(replace(KINESALITE, arguments=("--port", "4599")))
    with pytest.raises(ServerError, match=r"kinesalite did not answer in 0\.5 s"), silent:
        pass


def test_without_node_or_the_packages_the_error_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho /usr/bin/node\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kinesis_servers, "FOLDER", tmp_path / ".kinesis-servers")
    with pytest.raises(NotInstalled, match=r"they are not in \.kinesis-servers \('make \.kinesis-servers/\.ready'"):
        KinesisServer(KINESALITE).__enter__()
    node.write_text("#!/bin/sh\nexit 127  # as a version manager leaves it\n")
    with pytest.raises(NotInstalled, match=r"there is no Node\.js that runs"):
        KinesisServer(KINESALITE).__enter__()
    node.unlink()
    with pytest.raises(NotInstalled, match=r"there is no Node\.js that runs"):
        KinesisServer(KINESALITE).__enter__()


USERS = """
import os
import pathlib
import pytest

@pytest.fixture(scope="session")
def kinesalite():
    pathlib.Path(__file__).with_name(os.environ["PYTEST_XDIST_WORKER"]).touch()

@pytest.mark.parametrize("number", range(6))
def test_one_that_uses_it(kinesalite, number):
    pass

@pytest.mark.parametrize("number", range(6))
def test_another(number):
    pass
"""


def test_a_server_is_started_by_one_worker(tmp_path: Path) -> None:
    """A combination of pytest and pytest-xdist that does not know groups would start one in each, and say nothing."""
    (tmp_path / "test_users.py").write_text(USERS)
    plugins = ["-p", "no:cacheprovider", "-p", "xdist.plugin", "-p", kinesis_fixtures.__name__]
    options = ["-c", os.devnull, "--rootdir", str(tmp_path), *plugins]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-n", "2", "--dist", "loadgroup"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "12 passed" in result.stdout, result.stdout + result.stderr
    assert len(list(tmp_path.glob("gw*"))) == 1
