"""The model of batching, settlement, dead letters and frontier holds, and notices one-line mistakes in any of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings

from tests.simulation.mutants import Mutant, applied, occurrences
from tests.unit.worker.dispatch_model import Plan, plans, refused_plans, run

QUICK = tuple(phase for phase in Phase if phase is not Phase.explain)


@given(plans(windows=False))
@settings(max_examples=400, report_multiple_bugs=False, phases=QUICK)
def test_every_record_is_settled_once_in_order_and_no_checkpoint_passes_one(plan: Plan) -> None:
    """Never two attempts of a key at once, never past an unsettled record. A hand-over repeats nothing, a crash
    only what its last checkpoint does not name."""
    run(plan)


@given(plans(windows=True))
@settings(max_examples=200, report_multiple_bugs=False, phases=QUICK)
def test_windows_count_every_record_once_also_across_hand_overs(plan: Plan) -> None:
    """And across crashes: state and frontier belong together at every moment at which they may be stored."""
    run(plan)


@given(refused_plans())
@settings(max_examples=200, report_multiple_bugs=False, phases=QUICK)
def test_refused_letters_let_other_keys_pass_and_take_no_place_of_theirs(plan: Plan) -> None:
    """Batches that leave their places and come back: never more calls at once than there are places, none lost."""
    run(plan)


def wrong(name: str, file: str, old: str, new: str, kind: str = "batches") -> Mutant:
    return Mutant(name, file, old, new, (), family=kind)


WRONG = (
    wrong(
        "the right half first",
        "consumer/domain/settlement.py",
        "self._replace(piece.records[:half], piece.records[half:])",
        "self._replace(piece.records[half:], piece.records[:half])",
    ),
    wrong(
        "a reported record counts as settled",
        "consumer/domain/settlement.py",
        "done, rest = piece.records[:settled], piece.records[settled:]",
        "done, rest = piece.records[: settled + 1], piece.records[settled + 1 :]",
    ),
    wrong("a retry too few", "consumer/domain/settlement.py", "piece.retries > limit:", "piece.retries >= limit:"),
    wrong(
        "a throttle spends a retry",
        "consumer/domain/settlement.py",
        "            piece.fault = outcome.fault or piece.fault\n",
        "            piece.fault = outcome.fault or piece.fault\n            piece.retries += 1\n",
    ),
    wrong(
        "an answer settles the first records of the batch",
        "consumer/worker/shard/batch_runner.py",
        "self._subscription.settle(entries[settled : settled + len(done)], result)",
        "self._subscription.settle(entries[: len(done)], result)",
    ),
    wrong(
        "a retry gets another request id",
        "consumer/worker/shard/batch_runner.py",
        "if step.fresh_request or not request_id:",
        "if True:",
    ),
    wrong(
        "a record may expire during the back-off or in the queue",
        "consumer/worker/shard/batch_runner.py",
        "                    step = settlement.next(clock.wall())\n",
        "",
    ),
    wrong(
        "a suspended batch goes on without a slot",
        "consumer/worker/shard/batch_runner.py",
        "                    await permit.resume()\n",
        "                    pass\n",
        kind="refused",
    ),
    wrong(
        "a new batch takes the slot that was passed on",
        "consumer/worker/shard/batch_slots.py",
        "                turn.set_result(None)\n                return\n",
        "                turn.set_result(None)\n                break\n",
        kind="refused",
    ),
    wrong(
        "a letter that was refused counts as sent",
        "consumer/worker/shard/dead_letter_delivery.py",
        "error=str(error))\n            return False",
        "error=str(error))\n            return True",
    ),
    wrong(
        "a key in two batches",
        "consumer/domain/batching.py",
        "            if key not in busy:\n",
        "            if True:\n",
    ),
    wrong(
        "what does not fit forgets what waits behind it",
        "consumer/domain/batching.py",
        "            line.extend(self._busy.pop(key) or ())\n",
        "            self._busy.pop(key)\n",
    ),
    wrong(
        "keys get free while their batch is under way",
        "consumer/worker/shard/dispatcher.py",
        "                if self._windowed is None:\n",
        "                self._queue.free(batch.keys)\n                batch.keys = {}\n"
        "                if self._windowed is None:\n",
    ),
    wrong(
        "the checkpoint passes what is in flight",
        "consumer/domain/frontier.py",
        "while above and offset in settled:",
        "while above:",
    ),
    wrong(
        "a hand-over forgets what was settled further on",
        "consumer/domain/frontier.py",
        "        runs.extend(self._beyond_re_read())\n",
        "",
    ),
    wrong(
        "a state is not kept",
        "consumer/worker/shard/tumbling_windows.py",
        "            self._window.aggregated(state)\n",
        "",
        kind="windows",
    ),
    wrong(
        "a state is kept before its records are settled",
        "consumer/worker/shard/batch_runner.py",
        '                done, result = settlement.answered(outcome), "handled"\n',
        "                if window is not None and outcome.state:\n"
        "                    await window.accept(outcome.state)\n"
        "                    await asyncio.sleep(0.5)\n"
        '                done, result = settlement.answered(outcome), "handled"\n',
        kind="windows",
    ),
    wrong(
        "a border belongs to the window before it",
        "consumer/domain/windows.py",
        "if _usable(created) >= window.end)",
        "if _usable(created) > window.end)",
        kind="windows",
    ),
    wrong(
        "the last window stays open",
        "consumer/worker/shard/dispatcher.py",
        "return not (self._no_more and self._windowed is not None and self._windowed.is_open)",
        "return True",
        kind="windows",
    ),
)


@pytest.mark.parametrize("mutant", WRONG, ids=lambda mutant: mutant.name)
def test_the_model_notices(mutant: Mutant) -> None:
    assert occurrences(mutant) == 1
    here = Path(__file__).parents[3]
    with applied(mutant) as folder:
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{here}", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "tests.unit.worker.dispatch_model", mutant.family]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "plan=Plan(" in done.stderr, done.stderr
