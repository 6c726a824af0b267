"""Runs seeds of a family: ``python -m tests.simulation.simulate protocol --seed 17 --trace`` repeats one of them.

Exit status 1 when a promise was broken; every failing seed is printed with the command that repeats it. The hash seed
of Python is fixed, so that code which iterates over a set of texts does the same in every process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from consumer.testing.history import History
from tests.simulation.scenarios import FAMILIES, run

SHOWN = 3  # violations of one seed


def replay(family: str, seed: int) -> str:
    """The command that repeats a run."""
    return f"python -m tests.simulation.simulate {family} --seed {seed} --trace"


def report(family: str, seed: int, history: History) -> str:
    """What was violated, and how to see it again."""
    shown = [f"  {violation}" for violation in history.violations[:SHOWN]]
    more = len(history.violations) - SHOWN
    if more > 0:
        shown.append(f"  and {more} more")
    return "\n".join([f"{family} seed {seed}: a promise was broken", *shown, f"  again: {replay(family, seed)}"])


def attempt(family: str, seed: int) -> str:
    """The report, or an empty text when this seed kept all promises."""
    history = run(family, seed)
    return report(family, seed, history) if history.violations else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.simulate", description=__doc__)
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--seed", type=int, help="repeat this one")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--stop", action="store_true", help="stop at the first failing seed")
    options = parser.parse_args(arguments)
    if arguments is None and os.environ.get("PYTHONHASHSEED", "random") == "random":
        module = [sys.executable, "-m", "tests.simulation.simulate", *sys.argv[1:]]
        os.execve(sys.executable, module, {**os.environ, "PYTHONHASHSEED": "0"})
    if options.seed is not None:
        return _one(options.family, options.seed, trace=options.trace)
    seeds = range(options.first, options.first + options.seeds)
    return _many(options.family, seeds, options.jobs, stop=options.stop)


def _one(family: str, seed: int, *, trace: bool) -> int:
    history = run(family, seed, print if trace else None)
    print(f"{family} seed {seed}: {history.events} events, digest {history.digest}")
    if history.violations:
        print(report(family, seed, history))
    return 1 if history.violations else 0


def _many(family: str, seeds: range, jobs: int, *, stop: bool) -> int:
    started, failed = time.monotonic(), 0
    names = [family] * len(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        spread = partial(pool.map, chunksize=1 if stop else 8) if jobs > 1 else map
        results: Iterator[str] = spread(attempt, names, seeds)
        for result in results:
            if result:
                failed += 1
                print(result, flush=True)
                if stop:
                    pool.shutdown(cancel_futures=True)
                    break
    print(f"{family}: {len(seeds)} seeds, {failed} failed, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
