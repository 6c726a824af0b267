"""Commands of the product on the config of a fleet.

They run in this process, through the same entry point: what an interpreter of its own would add to each of some hundred
calls is a second of imports. What a process is to a command (signals, being killed, a terminal) has tests that start
one, and so has everything about ``run``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from consumer.cli.main import main
from tests.e2e.fleet import Fleet

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


def in_this_process(
    arguments: tuple[str, ...], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``stream-consumer`` with these arguments and, besides what is there, this environment; as if it had been a
    process that ended."""
    result = CliRunner().invoke(main, arguments, env={**CREDENTIALS, **(environment or {})}, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


def written(fleet: Fleet, name: str, **overrides: Any) -> Path:
    """The file with the config of ``fleet``."""
    path = fleet.folder / name
    path.write_text(yaml.safe_dump(fleet.config(**overrides)))
    path.chmod(0o600)
    return path


def consumer(fleet: Fleet, *command: str, **overrides: Any) -> subprocess.CompletedProcess[str]:
    """``stream-consumer`` with these arguments, ``{config}`` in them being the path of the config."""
    path = written(fleet, "command.yaml", **overrides)
    return in_this_process(tuple(part.replace("{config}", str(path)) for part in command))


def output_of(fleet: Fleet, *command: str, **overrides: Any) -> tuple[int, str]:
    """Exit code and output of a command on a config."""
    done = consumer(fleet, *command, **overrides)
    return done.returncode, done.stdout + done.stderr
