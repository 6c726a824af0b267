"""What a process is called in rows of the lease table."""

from __future__ import annotations

import os
import socket


def process_name() -> str:
    """``host/pid``. An incarnation adds what makes it unique (``domain.lease.name_of``)."""
    return f"{socket.gethostname()}/{os.getpid()}"
