"""The compiled code of ``speedups/``, built for the tests that need it: once in a test process, and not installed.
Where there is no C compiler, or no headers of Python, those are skipped, as nothing else needs them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from consumer.domain import compiled_values

SOURCE = Path(__file__).parents[2] / "speedups" / f"{compiled_values.PACKAGE}.c"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror")  # here only: a newer compiler may warn of more


def build(folder: Path) -> Path:
    """The module in this folder. Skips the test where it cannot be built."""
    compiler, headers = shutil.which("cc"), sysconfig.get_path("include")
    if compiler is None:
        pytest.skip("no C compiler (cc)")
    if not (Path(headers) / "Python.h").exists():
        pytest.skip(f"no headers of this Python ({headers}/Python.h)")
    module = folder / f"{compiled_values.PACKAGE}{EXTENSION_SUFFIXES[0]}"
    options = [*STRICT, "-shared", "-fPIC", "-O2", "-isystem", headers]
    if sysconfig.get_config_var("MACHDEP") == "darwin":
        options += ["-undefined", "dynamic_lookup"]
    done = subprocess.run([compiler, *options, str(SOURCE), "-o", str(module)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return module


@pytest.fixture(scope="session")
def speedups_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has nothing but the module, for the path of another process."""
    return build(tmp_path_factory.mktemp("speedups")).parent


@pytest.fixture(scope="session")
def speedups(speedups_folder: Path) -> ModuleType:
    """The module, which no import finds."""
    (file,) = speedups_folder.iterdir()
    spec = importlib.util.spec_from_file_location(compiled_values.PACKAGE, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["Python", "compiled code"])
def made_by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs each test of a module twice, and says what makes values in it."""
    module: Any = request.getfixturevalue("speedups") if request.param == "compiled code" else None
    yield compiled_values.use(module).made_by
    compiled_values.use(None)
