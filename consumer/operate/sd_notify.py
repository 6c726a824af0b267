"""The systemd notification protocol: one datagram of KEY=VALUE lines to the socket that NOTIFY_SOCKET names.

Written out here because it is thirty lines and the packages for it are unmaintained or need libsystemd. Without
NOTIFY_SOCKET everything is a no-op; a full or vanished socket must never hurt the daemon, so errors mean False.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``lines`` (such as ``READY=1``). True when the service manager took them; never blocks, never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    target = "\0" + address[1:] if address.startswith("@") else address  # @ stands for the abstract name space
    text = "\n".join(" ".join(line.splitlines()) for line in lines)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
            out.sendto(text.encode("utf-8", "replace"), target)
    except (OSError, ValueError):
        return False
    return True


def ready(status: str, environ: Mapping[str, str] = os.environ) -> bool:
    """The first plan is made. ``status`` is the line that ``systemctl status`` shows."""
    return notify("READY=1", f"STATUS={status}", environ=environ)


def status(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    return notify(f"STATUS={text}", environ=environ)


def watchdog(environ: Mapping[str, str] = os.environ) -> bool:
    """Only call this when the main loop made progress: its absence is what gets a wedged process killed."""
    return notify("WATCHDOG=1", environ=environ)


def stopping(environ: Mapping[str, str] = os.environ) -> bool:
    return notify("STOPPING=1", "STATUS=handing over the shards", environ=environ)
