"""Commands of the product on the config of a fleet."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import yaml

from tests.e2e.fleet import ROOT, Fleet


def consumer(fleet: Fleet, *command: str, **overrides: Any) -> subprocess.CompletedProcess[str]:
    """``stream-consumer`` with these arguments, ``{config}`` in them being the path of the config."""
    path = fleet.folder / "command.yaml"
    path.write_text(yaml.safe_dump(fleet.config(**overrides)))
    path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "consumer", *(part.replace("{config}", str(path)) for part in command)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def output_of(fleet: Fleet, *command: str, **overrides: Any) -> tuple[int, str]:
    """Exit code and output of a command on a config."""
    done = consumer(fleet, *command, **overrides)
    return done.returncode, done.stdout + done.stderr
