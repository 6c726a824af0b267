"""``python -m tests.simulation.mutants [part of a name]``: the whole gate. Exit status 1 when a mutant survives."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.simulation.mutants import MUTANTS, run


def main() -> int:
    """All mutants whose name contains the argument, if there is one; two at a time."""
    chosen = [mutant for mutant in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in mutant.name]
    survived = 0
    with ThreadPoolExecutor(2) as pool:
        running = {pool.submit(run, mutant): mutant for mutant in chosen}
        for ended in as_completed(running):
            mutant, verdict = running[ended], ended.result()
            as_expected = verdict.caught and not set(verdict.checkers).isdisjoint(mutant.caught_by)
            survived += not as_expected
            state = "caught" if as_expected else "NOT CAUGHT" if not verdict.caught else "caught by another checker"
            print(f"{state} after {verdict.seeds} seeds: {mutant.name} ({', '.join(verdict.checkers)})", flush=True)
            if not as_expected:
                print(verdict.output[-2000:])
    print(f"mutants: {len(chosen)}, not caught as they should: {survived}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
