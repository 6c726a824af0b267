"""``stream-consumer health``: ask the local daemon whether it works.

It is for container health checks, so it must be quick: the standard library asks, and the configuration is only read
when nothing else names the address.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from consumer.cli.config_file import optional_config
from consumer.cli.failures import EX_INTERNAL, EX_UNAVAILABLE, settings_or_exit

DEFAULT_ADDRESS: Final = ("127.0.0.1", 9464)
VARIABLE: Final = "STREAM_CONSUMER_HTTP"
TIMEOUT_SECONDS: Final = 3.0

_WILDCARDS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}  # noqa: S104 - asked, not bound


@click.command("health")
@optional_config
@click.option("--url", help=f"Address of the daemon, http://HOST:PORT. Also {VARIABLE}=HOST:PORT.")
def health(config: Path | None, url: str | None) -> None:
    """Ask the local daemon whether it is healthy: at --url, or where the http section of the config file says.

    Exit codes: 0 healthy, 69 it cannot be reached, 70 it is wedged, 78 the configuration is bad.
    """
    code, message = ask(*_address(config, url))
    click.echo(message, err=code != 0)
    raise SystemExit(code)


def ask(host: str, port: int, timeout: float = TIMEOUT_SECONDS) -> tuple[int, str]:
    """Exit code and one line of text. ``timeout`` in seconds, for connecting and for each read."""
    where = f"{f'[{host}]' if ':' in host else host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.connect()
    except (OSError, UnicodeError) as error:
        return EX_UNAVAILABLE, f"unreachable: {where}: {getattr(error, 'strerror', None) or error}"
    try:
        connection.request("GET", "/healthz", headers={"Connection": "close"})
        response = connection.getresponse()
        detail = " ".join(response.read(512).decode("utf-8", "replace").split())
    except TimeoutError:
        # The kernel took the connection but the process does not answer: stopped, or its control thread hangs.
        return EX_INTERNAL, f"wedged: {where} does not answer within {timeout:g}s"
    except (OSError, http.client.HTTPException) as error:
        return EX_UNAVAILABLE, f"unreachable: {where}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    if response.status == 200:
        return 0, f"healthy: {where}"
    if response.status == 503:
        return EX_INTERNAL, f"unhealthy: {where}: {detail or 'no reason given'}"
    return EX_UNAVAILABLE, f"unreachable: {where} answers {response.status}, so it is something else"


def _address(config: Path | None, url: str | None) -> tuple[str, int]:
    given = url or os.environ.get(VARIABLE)
    if given:
        return parse_address(given, "--url" if url else VARIABLE)
    if config:
        section = settings_or_exit(config).http
        return _WILDCARDS.get(section.host, section.host), section.port
    return DEFAULT_ADDRESS


def parse_address(text: str, source: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or an http:// URL, which came from ``source``. UsageError."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}", scheme="http")
        host, port = parts.hostname or "", parts.port or DEFAULT_ADDRESS[1]
    except ValueError as error:
        raise click.UsageError(f"{source}: {text!r} is not HOST:PORT ({error})") from error
    if parts.scheme != "http" or not parts.netloc:
        raise click.UsageError(f"{source}: {text!r} is neither HOST:PORT nor an http:// URL")
    return _WILDCARDS.get(host, host), port
