"""Whose a TCP connection on loopback is: Linux tells by ``/proc``."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))


def is_of_session(peer: Any, port: int, session: int) -> bool:
    """Whether the other end of a connection to our ``port``, which has the address ``peer``, belongs to a process of
    this session (the pid of its leader). True where that cannot be known: on systems without ``/proc``."""
    if sys.platform != "linux" or not _TABLES[0].exists():
        return True
    inode = _inode_of(peer, port)
    wanted = f"socket:[{inode}]"
    return inode is not None and any(wanted in _open_files(pid) for pid in _session(session))


def _inode_of(peer: Any, port: int) -> str | None:
    """The inode of the client's socket."""
    if not peer or len(peer) < 2:
        return None
    (address,) = struct.unpack("=I", socket.inet_aton(peer[0]))
    theirs, ours = f"{address:08X}:{peer[1]:04X}", f":{port:04X}"
    for table in _TABLES:
        with contextlib.suppress(OSError), table.open(encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 9 and fields[1].endswith(theirs) and fields[2].endswith(ours):
                    return fields[9]
    return None


def _session(leader: int) -> Iterator[int]:
    """The processes of a session, its leader first."""
    yield leader
    for name in [entry.name for entry in Path("/proc").iterdir()]:
        if name.isdecimal() and int(name) != leader:
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader:
                    yield int(name)


def _open_files(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
    return found
