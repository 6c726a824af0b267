"""The mutation gate: one-line mistakes in the production code, each of which the simulator must notice.

A simulator that finds nothing proves nothing unless it would find something. Every mutant breaks one rule that a
guarantee rests on; it is applied to a copy of the package, never to the checkout, and has to be caught within 200 seeds
of its family of runs. ``make mutants`` runs them all; the test suite runs those that die quickly.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.mutants.breaker import BREAKER
from tests.simulation.mutants.failing_keys import FAILING_KEYS
from tests.simulation.mutants.fleet import FLEET
from tests.simulation.mutants.kinesis import KINESIS
from tests.simulation.mutants.mutant import Mutant
from tests.simulation.mutants.parking import PARKING
from tests.simulation.mutants.records import RECORDS
from tests.support.authorities import NONE_ELSE

ROOT = Path(__file__).parents[3]
COPIED = (
    "consumer",
    "tests/__init__.py",
    "tests/simulation",
    "tests/support/__init__.py",
    "tests/support/kpl_aggregates.py",
    "tests/unit/__init__.py",
    "tests/unit/worker",
)
MOST_SEEDS = 200
MUTANTS = (*FLEET, *RECORDS, *FAILING_KEYS, *KINESIS, *PARKING, *BREAKER)


@dataclass(frozen=True)
class Verdict:
    """``seeds``: how many it took; ``checkers``: who spoke up on the first failing seed."""

    caught: bool
    seeds: int
    checkers: tuple[str, ...]
    output: str


def occurrences(mutant: Mutant) -> set[int]:
    """How often each of the lines to change is there."""
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    return {text.count(old) for old, _ in mutant.changes}


@contextmanager
def applied(mutant: Mutant) -> Iterator[str]:
    """A folder to run in: a copy of the package and its simulations with the mistake. ValueError when it does not
    apply, because then it would prove nothing."""
    if occurrences(mutant) != {1}:
        raise ValueError(f"the line to change is not there once in {mutant.file}: {mutant.name}")
    with tempfile.TemporaryDirectory() as folder:
        for part in COPIED:
            source, target = ROOT / part, Path(folder) / part
            if source.is_dir():
                shutil.copytree(source, target)  # with what is compiled: but for one file it is right
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
        path = Path(folder) / mutant.file
        text = path.read_text(encoding="utf-8")
        for old, new in mutant.changes:
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        yield folder


def run(mutant: Mutant, seeds: int = MOST_SEEDS) -> Verdict:
    """Apply ``mutant`` to a copy of the package and run its family until a seed fails. RuntimeError when it does not
    run at all: that must look like no verdict."""
    with applied(mutant) as folder:
        command = [sys.executable, "-m", "tests.simulation.simulate", mutant.family, "--seeds", str(seeds), "--stop"]
        environment = {
            **os.environ,
            **NONE_ELSE,
            "PYTHONPATH": folder,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if f"{mutant.family}: " not in done.stdout:
        raise RuntimeError(f"the simulation of {mutant.name!r} did not run: {done.stderr[-2000:]}")
    found = re.search(r"seed (\d+): a promise was broken", done.stdout)
    checkers = tuple(dict.fromkeys(re.findall(r"^ +[\d.]+  ([^:]+): ", done.stdout, re.MULTILINE)))
    output = done.stdout + done.stderr
    return Verdict(found is not None, int(found[1]) + 1 if found else seeds, checkers, output)
