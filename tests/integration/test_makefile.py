"""``make`` finds a Python that really runs, and says what it tried when there is none. It goes on without Node.js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

# As a version manager leaves it for a version that is not selected.
SHIM = "#!/bin/sh\necho 'python: command not found' >&2\nexit 127\n"
REAL = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
OLD = "#!/bin/sh\nexit 1  # as the check answers on a Python that is too old, or that cannot make an environment\n"

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """``make(*arguments, **commands)``: run the Makefile in an empty folder with these commands alone on the PATH."""

    def run(*arguments: str, **commands: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in commands.items():
            command = folder / name.replace("_", ".")
            command.write_text(text)
            command.chmod(0o755)
        return subprocess.run(
            [str(MAKE), "-s", "-f", str(ROOT / "Makefile"), *arguments],
            cwd=tmp_path,
            env={"PATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def chosen(make: Make, *arguments: str, **commands: str) -> str:
    return make("--eval", "chosen: ; $(info $(PYTHON)) @:", "chosen", *arguments, **commands).stdout.strip()


def test_the_newest_that_runs_is_taken(make: Make) -> None:
    assert chosen(make, python3_12=REAL, python3_11=REAL, python3=REAL) == "python3.12"


def test_a_shim_that_fails_and_a_version_that_is_too_old_are_passed_over(make: Make) -> None:
    assert chosen(make, python3_13=SHIM, python3_12=OLD, python3_11=REAL, python3=OLD) == "python3.11"
    assert chosen(make, python3_11=SHIM, python3=REAL) == "python3"


def test_where_there_is_only_a_newer_one_it_is_taken(make: Make) -> None:
    assert chosen(make, python3_14=REAL, python3=OLD) == "python3.14"


def test_a_named_one_is_taken(make: Make) -> None:
    assert chosen(make, "PYTHON=mine", python3_12=REAL, mine=REAL) == "mine"


def test_without_any_the_error_names_what_was_tried(make: Make) -> None:
    result = make(".venv/bin/python", python3=OLD)
    assert result.returncode != 0
    assert "none of python3.13 python3.12 python3.11 python3.14 python3 is a Python of 3.11 or newer" in result.stderr
    assert "PYTHON=" in result.stderr


def test_a_named_one_that_is_too_old_is_refused_before_anything_is_made(make: Make, tmp_path: Path) -> None:
    result = make(".venv/bin/python", "PYTHON=old", old=OLD, python3=REAL)
    assert result.returncode != 0
    assert "old is no Python of 3.11 or newer" in result.stderr
    assert not (tmp_path / ".venv").exists()


# --- the local Kinesis servers ---------------------------------------------------------------------

SERVERS = ".kinesis-servers/.ready"
NODE = "#!/bin/sh\nexit 0\n"
NPM = '#!/bin/sh\nmkdir -p .kinesis-servers/node_modules\necho "$@" >>npm-calls\n'
NPM_OFFLINE = '#!/bin/sh\n[ "$1" = --version ] || { echo "npm error code ECONNREFUSED"; exit 1; }\n'


@pytest.fixture
def install_servers(make: Make, tmp_path: Path) -> Callable[..., str]:
    """Install them with these commands; returns what make says, which must not fail."""
    lock = tmp_path / "requirements" / "kinesis-servers"
    shutil.copytree(ROOT / "requirements" / "kinesis-servers", lock)
    tools = {name: f'#!/bin/sh\nexec {shutil.which(name)} "$@"\n' for name in ("rm", "mkdir", "cp", "touch")}

    def install(**commands: str) -> str:
        for name in ("node", "npm"):
            (tmp_path / "bin" / name).unlink(missing_ok=True)
        result = make(SERVERS, **tools, **commands)
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    return install


def test_the_kinesis_servers_are_installed_as_locked_and_once(
    install_servers: Callable[..., str], tmp_path: Path
) -> None:
    assert install_servers(node=NODE, npm=NPM) == ""
    assert (tmp_path / SERVERS).is_file()
    copied, locked = (
        tmp_path / top / "package-lock.json" for top in (".kinesis-servers", "requirements/kinesis-servers")
    )
    assert copied.read_bytes() == locked.read_bytes()
    calls = (tmp_path / "npm-calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["--version", "ci"]
    assert install_servers(node=NODE, npm=NPM) == ""
    assert (tmp_path / "npm-calls").read_text().splitlines() == calls


@pytest.mark.parametrize(
    "commands", [{}, {"node": NODE}, {"node": OLD, "npm": NPM}, {"node": SHIM, "npm": NPM}, {"node": NODE, "npm": SHIM}]
)
def test_without_node_one_line_says_that_their_tests_are_skipped(
    install_servers: Callable[..., str], tmp_path: Path, commands: dict[str, str]
) -> None:
    said = install_servers(**commands)
    assert said == "make: no Node.js of 18 or newer with npm: the tests on local Kinesis servers are skipped\n"
    assert not (tmp_path / ".kinesis-servers").exists()


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_check_of_the_version_is_one(make: Make) -> None:
    check = make("--eval", "fits: ; $(info $(NODE_FITS)) @:", "fits").stdout.strip()
    for version, code in ((17, 1), (18, 0), (22, 0)):
        pretended = f"Object.defineProperty(process, 'versions', {{value: {{node: '{version}.2.0'}}}}); {check}"
        assert subprocess.run([str(shutil.which("node")), "-e", pretended], timeout=60).returncode == code


def test_what_npm_cannot_install_is_not_left_half_installed(
    install_servers: Callable[..., str], tmp_path: Path
) -> None:
    install_servers(node=NODE, npm=NPM)
    os.utime(tmp_path / SERVERS, (0, 0))  # older than the lock: a new one came
    said = install_servers(node=NODE, npm=NPM_OFFLINE)
    assert len(said.splitlines()) == 1
    assert "npm cannot install the local Kinesis servers (.kinesis-servers/npm.log says why)" in said
    assert "ECONNREFUSED" in (tmp_path / ".kinesis-servers" / "npm.log").read_text()
    assert not (tmp_path / SERVERS).exists()
    assert not (tmp_path / ".kinesis-servers" / "node_modules").exists()
    assert install_servers(node=NODE, npm=NPM) == "", "the next run tries again"
    assert (tmp_path / SERVERS).is_file()


def test_every_package_of_the_kinesis_servers_is_pinned_by_its_hash_and_by_no_place() -> None:
    lock = json.loads((ROOT / "requirements" / "kinesis-servers" / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages["node_modules/kinesis-local"]["version"] == "0.6.2"
    assert packages["node_modules/kinesalite"]["version"] == "3.3.3"
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
