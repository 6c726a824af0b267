"""What pip installs: the files of the wheel and the sdist, and that type checkers see the types of the public names."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel itself and sees this one's other packages."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False, symlinks=True)
    places = sysconfig.get_paths(scheme="venv", vars={"base": str(home), "platbase": str(home)})
    site = Path(places["purelib"])
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return Path(places["scripts"]) / "python"


def check_types(interpreter: Path, folder: Path, code: str) -> str:
    """The complaints of ``mypy --strict`` about ``code``, one a line."""
    module, settings = folder / "handlers.py", folder / "mypy.ini"
    module.write_text(code)
    settings.write_text("[mypy]\n")  # not those of this project
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", str(settings)]
    command += ["--cache-dir", str(folder / "cache"), "--python-executable", str(interpreter), module.name]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=150)
    return result.stdout + result.stderr


def test_the_wheel_has_the_package_with_its_type_marker_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert "consumer/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"consumer", "dynamodb_stream_consumer-0.1.0.dist-info"}


def test_the_wheel_is_for_any_machine(built: Path) -> None:
    """The compiled code is a package of its own."""
    wheel = next(built.glob("*.whl"))
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as contents:
        assert {Path(name).suffix for name in contents.namelist()} & {".c", ".so", ".pyd"} == set()


def test_the_sdist_has_what_builds_and_tests_it(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"consumer/py.typed", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"} <= names
    assert {"requirements/dev.lock", "demo/__main__.py", "tests/conftest.py", "config/minimal.yaml"} <= names
    assert {"requirements/kinesis-servers/package.json", "requirements/kinesis-servers/package-lock.json"} <= names
    assert {
        ".ci/run",
        ".github/workflows/tests.yml",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "deploy/iam/policy.json",
    } <= names
    assert {name for name in names if name.startswith("speedups/")} == {
        "speedups/README.md",
        "speedups/pyproject.toml",
        "speedups/setup.py",
        "speedups/stream_consumer_speedups.c",
    }
    assert not [name for name in names if name.startswith((".venv", ".kinesis-servers")) or "__pycache__" in name]
    assert not [name for name in names if "node_modules" in name]


@pytest.mark.usefixtures("speedups")
def test_the_compiled_code_is_a_package_of_its_own(tmp_path: Path) -> None:
    """Built as ``make speedups`` builds it."""
    source, site = tmp_path / "speedups", tmp_path / "site"
    shutil.copytree(ROOT / "speedups", source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(tmp_path), str(source)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("stream_consumer_speedups-*.whl"))) as wheel:
        wheel.extractall(site)
    code = "from consumer.domain.compiled_values import choose; print(*choose({}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "compiled code \n", done.stderr


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    contents = []
    for folder in (built, tmp_path / "dist"):
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            contents.append({entry.filename: entry.CRC for entry in wheel.infolist()})
    assert contents[0] == contents[1]


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(wheel.read(name).decode())


def test_the_page_on_an_index_has_no_link_into_a_folder_that_is_not_there(metadata: Message) -> None:
    page = str(metadata.get_payload())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# dynamodb-stream-consumer" in page
    assert "docs/architecture.md explains it in four pages" in page, "a link is its text"
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert [link for link in links if not link.startswith("https://")] == []
    assert all(" https://" in url for url in metadata.get_all("Project-URL", []))


def test_every_version_of_the_classifiers_is_tested_by_the_workflow(metadata: Message) -> None:
    prefix = "Programming Language :: Python :: "
    named = [text.removeprefix(prefix) for text in metadata.get_all("Classifier", []) if text.startswith(prefix)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == named
    assert metadata["Requires-Python"] == f">={named[0]}"


def test_the_installed_command_runs(installed: Path, metadata: Message) -> None:
    """From the files of the wheel alone: nothing of the checkout is on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = (
        "from importlib.metadata import entry_points; import sys; sys.argv = ['stream-consumer', 'schema']; "
        "entry_points(group='console_scripts')['stream-consumer'].load()()"
    )
    command = [str(installed), "-P", "-c", code]
    done = subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "config" / "consumer.schema.json").read_text(encoding="utf-8")


def test_the_readme_has_a_handler() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_a_handler_of_the_readme_passes_strict_type_checks(installed: Path, tmp_path: Path, number: int) -> None:
    assert check_types(installed, tmp_path, EXAMPLES[number]) == ""


def test_a_type_checker_knows_record_and_context(installed: Path, tmp_path: Path) -> None:
    """Otherwise the test above would pass with names that may be anything."""
    code = (
        "from dataclasses import dataclass\n"
        "from typing import TypedDict, assert_type\n"
        "import msgspec\n"
        "from consumer import Context, Record\n\n\n"
        "class Order(msgspec.Struct):\n    pk: str\n\n\n"
        "@dataclass\nclass Point:\n    x: float\n\n\n"
        "class Key(TypedDict):\n    pk: str\n\n\n"
        "def handle(records: list[Record], context: Context) -> None:\n"
        "    assert_type(records[0].decode(Order), Order)\n"
        "    assert_type(records[0].decode(Point, image='old'), Point)\n"
        "    assert_type(records[0].decode(Key, image='keys'), Key)\n"
        "    assert_type(records[0].decode(dict[str, int]), dict[str, int])\n"
        "    records[0].sequence_numbr\n"
        "    context.lease_epoch + 'x'\n"
        "    records[0].decode(Order).sk\n"
        "    records[0].decode(Order, image='nwe')\n"
    )
    complaints = check_types(installed, tmp_path, code).splitlines()
    kinds = [re.sub(r".*\[([\w-]+)\]$", r"\1", line) for line in complaints]
    assert kinds == ["attr-defined", "operator", "attr-defined", "arg-type"]


def test_what_is_called_public_of_the_testing_package_exists() -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    table = page.partition("What of `consumer.testing` is public")[2].partition("\n\nThe families")[0]
    names = re.findall(r"`(\w+)\.(\w+)`", table)
    assert len(names) >= 5
    for module, name in names:
        assert hasattr(importlib.import_module(f"consumer.testing.{module}"), name), f"{module}.{name}"


def test_every_folder_of_the_readme_exists() -> None:
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("| folder | holds |")[2].partition("\n\n")[0]
    folders = re.findall(r"`([\w/]+)`", "\n".join(line.split("|")[1] for line in layout.splitlines() if line))
    assert len(folders) > 10
    for folder in folders:
        places = [ROOT / folder, ROOT / "consumer" / "worker" / folder, ROOT / "consumer" / "cli" / folder]
        assert any(place.is_dir() for place in places), folder
