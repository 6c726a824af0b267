"""``stream-consumer health``: ask the local daemon whether it works.

It is for container health checks, so it must be quick: the standard library asks, and of the configuration only the
``http`` section is looked at, without the model. What else is wrong with the file is no matter of a daemon that runs.
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

    Exit codes: 0 healthy, 69 it cannot be reached, 70 it is wedged, 78 the configuration does not say where it is.
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
        host, port = _of_section(config) or _of_settings(config)
        return _WILDCARDS.get(host, host), port
    return DEFAULT_ADDRESS


def _of_section(config: Path) -> tuple[str, int] | None:
    """None where the file or its ``http`` section needs more than a look."""
    from consumer.settings.errors import ConfigError
    from consumer.settings.yaml_file import parse, read_text

    try:
        values = parse(read_text(config), str(config), os.environ)
    except ConfigError:
        return None
    section = values.data.get("http", {})
    if not isinstance(section, dict) or any(location[0] == "http" for location in values.broken):
        return None
    host, port = section.get("host", DEFAULT_ADDRESS[0]), section.get("port", DEFAULT_ADDRESS[1])
    return (host, port) if isinstance(host, str) and host and type(port) is int and 0 <= port < 65536 else None


def _of_settings(config: Path) -> tuple[str, int]:
    """Every problem on stderr and exit 78."""
    section = settings_or_exit(config).http
    return section.host, section.port


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
