from __future__ import annotations

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.operate import sd_notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@stream-consumer-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0") if name.startswith("@") else name)
        receiver.settimeout(2)
        yield receiver, {"NOTIFY_SOCKET": name}


def test_every_message(manager: tuple[socket.socket, dict[str, str]]) -> None:
    receiver, environ = manager
    assert sd_notify.ready("shards=3", environ)
    assert receiver.recv(4096) == b"READY=1\nSTATUS=shards=3"
    assert sd_notify.status("lag=0.4s", environ)
    assert receiver.recv(4096) == b"STATUS=lag=0.4s"
    assert sd_notify.watchdog(environ)
    assert receiver.recv(4096) == b"WATCHDOG=1"
    assert sd_notify.stopping(environ)
    assert receiver.recv(4096).startswith(b"STOPPING=1\n")


def test_a_status_cannot_smuggle_another_message(manager: tuple[socket.socket, dict[str, str]]) -> None:
    receiver, environ = manager
    sd_notify.status("fine\nWATCHDOG=1\r\nMAINPID=1", environ)
    assert receiver.recv(4096) == b"STATUS=fine WATCHDOG=1 MAINPID=1"


def test_a_manager_that_does_not_read_never_blocks(manager: tuple[socket.socket, dict[str, str]]) -> None:
    _, environ = manager
    results = [sd_notify.watchdog(environ) for _ in range(5000)]
    assert results[0]
    assert not results[-1]


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:3", "/" + "x" * 300, "/a\0b"])
def test_without_a_usable_socket_it_is_a_no_op(address: str) -> None:
    assert not sd_notify.ready("x", {"NOTIFY_SOCKET": address})
    assert not sd_notify.ready("x", {})
