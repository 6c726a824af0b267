"""The mutation gate in its quick form: all mutants still apply, and those that die quickly die."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, occurrences, run


def test_there_are_enough_mutants() -> None:
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_line_to_change_is_there_once(mutant: Mutant) -> None:
    assert occurrences(mutant) == {1}


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.quick], ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    verdict = run(mutant, seeds=30)
    assert verdict.caught, verdict.output
    assert not set(verdict.checkers).isdisjoint(mutant.caught_by), verdict.output


def test_a_mutant_that_does_not_apply_is_an_error() -> None:
    """It would run the code as it is, and look as if the simulator had missed something, or found something else."""
    with pytest.raises(ValueError, match="not there once"):
        run(Mutant("gone", "consumer/worker/fleet/session_renewal.py", "no such line", "", ("G3 one owner",)), seeds=1)


def test_the_gate_fails_for_what_nothing_can_catch() -> None:
    """A change without effect must not pass for a mutant that was caught."""
    verdict = run(
        Mutant(
            "harmless",
            "consumer/worker/fleet/session_renewal.py",
            "RENEWALS_PER_DURATION = 4",
            "RENEWALS_PER_DURATION = 5",
            (),
        ),
        seeds=1,
    )
    assert not verdict.caught
