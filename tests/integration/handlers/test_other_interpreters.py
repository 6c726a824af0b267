"""``handler.python``: user code in another Python, with packages of its own, in which the daemon is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from tests.integration.handlers.support import call, invoke, number, running, write_module

REPOSITORY = Path(__file__).parents[3]
OTHER_BOTO3 = REPOSITORY / ".venv-runtime" / "bin" / "python"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A virtual environment without any package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


async def test_lambda_code_needs_nothing_there(bare: str, tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import sys
        def handler(event, context):
            try:
                import msgspec
            except ImportError:
                print(sys.prefix)
            return {"batchItemFailures": [{"itemIdentifier": event["Records"][1]["dynamodb"]["SequenceNumber"]}]}
        """,
    )
    with capture_logs() as logs:
        async with running(path, python=bare) as handler:
            outcome = await invoke(handler, call(3))
    assert (outcome.kind, outcome.failed) == ("partial", (number(1),))
    (line,) = [entry["line"] for entry in logs if entry["event"] == "handler.output"]
    assert line == str(Path(bare).parents[1])


async def test_python_code_needs_msgspec_there(bare: str, tmp_path: Path) -> None:
    path = write_module(tmp_path, "def handler(records, context): pass")
    with pytest.raises(HandlerImportError, match=r"kind python needs msgspec in .*pip install msgspec") as caught:
        async with running(path, kind="python", python=bare):
            pass
    assert bare in str(caught.value)


async def test_python_code_with_the_public_names_where_the_daemon_is_not_installed(bare: str, tmp_path: Path) -> None:
    import msgspec

    library = tmp_path / "library"
    shutil.copytree(Path(msgspec.__file__).parent, library / "msgspec")
    path = write_module(
        tmp_path,
        """
        import sys
        from consumer import Context, Record
        def handler(records: list[Record], context: Context):
            assert isinstance(records[0], Record) and isinstance(context, Context)
            assert sys.prefix != sys.base_prefix
            try:
                import consumer.worker
            except ImportError:
                return [records[0]] if records[0].new_image["n"] == 0 else None
        """,
    )
    async with running(path, "python", environment={"PYTHONPATH": str(library)}, python=bare) as handler:
        outcome = await invoke(handler, call(2))
    assert (outcome.kind, outcome.failed, outcome.exact) == ("partial", (number(0),), True)


@pytest.mark.skipif(not OTHER_BOTO3.exists(), reason="make .venv-runtime/.ready makes the environment of a function")
async def test_a_function_with_a_boto3_of_its_own(tmp_path: Path) -> None:
    path = write_module(tmp_path, "import boto3\ndef handler(event, context): print(boto3.__version__)")
    with capture_logs() as logs:
        async with running(path, python=str(OTHER_BOTO3)) as handler:
            assert (await invoke(handler, call())).kind == "ok"
    (line,) = [entry["line"] for entry in logs if entry["event"] == "handler.output"]
    import boto3

    assert line != boto3.__version__
    assert tuple(map(int, line.split("."))) >= (1, 43)


async def test_what_is_no_python_is_named(tmp_path: Path) -> None:
    path = write_module(tmp_path, "def handler(event, context): pass")
    for text, message in (
        ("#!/bin/sh\nexit 3\n", "ended during the import: exit status 3"),
        ("no program", "no worker process can be started"),
    ):
        program = tmp_path / "python"
        program.write_text(text)
        program.chmod(0o755)
        with pytest.raises(HandlerImportError, match=message):
            async with running(path, python=str(program)):
                pass


def _pythons() -> dict[tuple[int, int], str]:
    """Other Pythons of this machine: on the PATH, or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    names = [*(f"python3.{minor}" for minor in range(6, 15)), "python2.7", "pypy3"]
    found = {}
    for python in [*filter(None, map(shutil.which, names)), *sorted(map(str, pyenv.glob("*/bin/python")))]:
        answer = subprocess.run([python, "-c", "import sys; print(list(sys.version_info[:2]))"], capture_output=True)
        if answer.returncode == 0:
            major, minor = json.loads(answer.stdout)
            found[major, minor] = python
    return found


@pytest.fixture(scope="module")
def pythons() -> dict[tuple[int, int], str]:
    return _pythons()


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 12), (3, 13)], ids=str)
async def test_lambda_code_in_another_version(
    pythons: dict[tuple[int, int], str], tmp_path: Path, version: tuple[int, int]
) -> None:
    if version not in pythons:
        pytest.skip("this Python is not here; ruff holds the runtime to 3.9 by its syntax")
    path = write_module(
        tmp_path,
        """
        import logging, sys
        def handler(event, context):
            logging.getLogger().warning("at work")
            context.log(context.get_remaining_time_in_millis() > 0)
            if event["Records"][0]["eventName"] == "INSERT":
                raise ValueError(str(list(sys.version_info[:2])))
        """,
    )
    with capture_logs() as logs:
        async with running(path, python=pythons[version]) as handler:
            outcome = await invoke(handler, call())
            assert outcome.fault is not None
            assert (outcome.fault.type, outcome.fault.message) == ("ValueError", str(list(version)))
            assert len(outcome.fault.stack) == 1
    lines = [entry["line"] for entry in logs if entry["event"] == "handler.output"]
    assert (lines[0].rpartition("\t")[2], lines[1]) == ("at work", "True")
    if version < (3, 11):
        with pytest.raises(HandlerImportError, match=r"kind python needs 3\.11 or newer, kind lambda does not"):
            async with running(path, "python", python=pythons[version]):
                pass


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 8)], ids=str)
async def test_what_is_too_old_is_named(
    pythons: dict[tuple[int, int], str], tmp_path: Path, version: tuple[int, int]
) -> None:
    if version not in pythons:
        pytest.skip("this Python is not here")
    path = write_module(tmp_path, "def handler(event, context): pass")
    found = r"handler\.python: .* is Python {}\.{}\.[0-9]+; 3\.9 or newer is needed".format(*version)
    with pytest.raises(HandlerImportError, match=found):
        async with running(path, python=pythons[version]):
            pass


def test_the_runtime_imports_the_standard_library_only() -> None:
    """And nothing of the daemon by its public name: that one is the user's."""
    code = """
import sys, types
package = sys.modules["_stream_consumer"] = types.ModuleType("_stream_consumer")
package.__path__ = [sys.argv[1]]
before = set(sys.modules)
import _stream_consumer.handlers.runtime.main
import json; print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""
    command = [sys.executable, "-I", "-c", code, str(REPOSITORY / "consumer")]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(loaded) - sys.stdlib_module_names == {"_stream_consumer"}
