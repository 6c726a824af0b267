"""Whom programs that tests start trust with TLS: nobody but a server of these tests.

They talk to servers on this machine, most of them without TLS. The system's 150 authorities are read three times by
each daemon (``aiohttp`` reads them twice when it is imported), which is a tenth of its start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

LOCAL_SERVER: Final = Path(__file__).with_name("local_server.pem")
"""The key and the certificate of a server on 127.0.0.1."""

NONE_ELSE: Final = {"SSL_CERT_FILE": str(LOCAL_SERVER), "AWS_CA_BUNDLE": str(LOCAL_SERVER)}
