"""The model of batching, pieces, settlement, dead letters, deferred keys and frontier holds, and notices one-line
mistakes in any of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings

from consumer.domain.batching import BOUNDS
from tests.simulation.mutants import Mutant, applied, occurrences
from tests.support.authorities import NONE_ELSE
from tests.unit.worker.dispatch_model import FAMILIES, Plan
from tests.unit.worker.dispatch_world import run

QUICK = tuple(phase for phase in Phase if phase is not Phase.explain)


# One key, and a breaker that probes every ten minutes while six retries of it are spent: this takes over an hour.
SLOW = Plan(
    pages=[
        [("a", "good"), ("a", "poison"), ("a", "flaky"), *[("a", "good")] * 5],
        *([("a", "good")], [("a", "poison")], [("a", "good")] * 6, [("a", "good")] * 8),
    ],
    pauses=[0.0, 0.0, 0.0, 7.0, 30.0],
    order="key",
    batch_size=3,
    factor=1,
    places=0,
    batching_window=0.0,
    room=3,
    retries=6,
    refusals=0.0,
    bisect=False,
    limited_age=False,
    bounds=BOUNDS,
    stops=[],
    windows=False,
    seed=2532,
)


@given(FAMILIES["batches"])
@example(SLOW)
@settings(max_examples=150, report_multiple_bugs=False, phases=QUICK)
def test_every_record_is_settled_once_in_order_and_no_checkpoint_passes_one(plan: Plan) -> None:
    """Never two attempts of a key at once, never past an unsettled record. A hand-over repeats nothing, a crash
    only what its last checkpoint does not name."""
    run(plan)


@given(FAMILIES["windows"])
@settings(max_examples=70, report_multiple_bugs=False, phases=QUICK)
def test_windows_count_every_record_once_also_across_hand_overs(plan: Plan) -> None:
    """And across crashes: state and frontier belong together at every moment at which they may be stored."""
    run(plan)


@given(FAMILIES["refused"])
@settings(max_examples=70, report_multiple_bugs=False, phases=QUICK)
def test_refused_letters_let_other_keys_pass_and_take_no_slot_of_theirs(plan: Plan) -> None:
    """Never more calls at once than there are slots and places, of which retries take half: none is lost, either."""
    run(plan)


@given(FAMILIES["deferred"])
@settings(max_examples=70, report_multiple_bugs=False, phases=QUICK)
def test_deferred_keys_catch_up_in_order_also_across_hand_overs_and_crashes(plan: Plan) -> None:
    """What waits behind a failing key leaves the books and comes back, once: no checkpoint passes it."""
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
        "with what is too old go the later records of its key",
        "consumer/domain/settlement.py",
        "        if count < len(records):\n",
        "        if False:\n",
        kind="deferred",
    ),
    wrong(
        "what a failing piece does not try now stays in the books when its key is deferred",
        "consumer/worker/shard/key_order.py",
        "self._subscription.defer(key, kept, [*later, *waiting])",
        "self._subscription.defer(key, kept, waiting)",
        kind="deferred",
    ),
    wrong(
        "an answer settles the first records of the batch",
        "consumer/worker/shard/shard_order.py",
        "self._settle(entries[settled : settled + len(done)], result, batch)",
        "self._settle(entries[: len(done)], result, batch)",
    ),
    wrong(
        "a retry gets another request id in the order of the shard",
        "consumer/worker/shard/shard_order.py",
        "if step.fresh_request or not request_id:",
        "if True:",
        kind="windows",
    ),
    wrong(
        "a record may expire during the back-off or in the queue",
        "consumer/worker/shard/shard_order.py",
        "                    step = settlement.next(clock.trusted())\n",
        "",
    ),
    wrong(
        "the order of the shard is that of its keys",
        "consumer/worker/shard/subscription.py",
        "return self.window is not None or not self._by_key",
        "return self.window is not None",
    ),
    wrong(
        "a retry gets another request id",
        "consumer/worker/shard/key_order.py",
        "if step.fresh_request or not piece.request_id:",
        "if True:",
    ),
    wrong(
        "a record of a piece may expire during its back-off",
        "consumer/worker/shard/key_order.py",
        "                step = piece.next(self._clock.trusted())\n",
        "                step = piece.next(0.0)\n",
    ),
    wrong(
        "a piece is freed too early",
        "consumer/worker/shard/key_order.py",
        "held = {key for rest in cut.pieces for key in rest.keys}",
        "held = {key for rest in cut.pieces[:1] for key in rest.keys}",
    ),
    wrong(
        "retries take all slots",
        "consumer/worker/shard/key_order.py",
        "may_retry = bool(self._due) and self._retrying < self._most_retrying",
        "may_retry = bool(self._due)",
        kind="refused",
    ),
    wrong(
        "retries take all places of the handler",
        "consumer/worker/handler_places.py",
        "asyncio.Semaphore(max(1, width // 2))",
        "asyncio.Semaphore(width)",
        kind="deferred",
    ),
    wrong(
        "a slot more than there are",
        "consumer/worker/shard/dispatcher.py",
        "while self._taken < self._width and",
        "while self._taken <= self._width and",
    ),
    wrong(
        "a cut loses the rest",
        "consumer/domain/pieces.py",
        "[self._of(left), self._of(right)]",
        "[self._of(left)]",
    ),
    wrong(
        "what a function may not have come to counts as handled",
        "consumer/domain/pieces.py",
        "        if not outcome.exact:\n",
        "        if False:\n",
    ),
    wrong(
        "a partial answer settles the later records of a failing key",
        "consumer/domain/pieces.py",
        "settled = [entry for entry in self.entries if entry.key not in failing]",
        "settled = [entry for entry in self.entries if entry.record.sequence_number not in failed]",
    ),
    wrong(
        "keys without a record in the letter of what is too old are forgotten",
        "consumer/domain/pieces.py",
        "        return first, self._part(rest)\n",
        "        return first, None\n",
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
        "                if key not in busy:\n",
        "                if True:\n",
    ),
    wrong(
        "what does not fit forgets what waits behind it",
        "consumer/domain/batching.py",
        "            line.extend(self._busy.pop(key) or ())\n",
        "            self._busy.pop(key)\n",
    ),
    wrong(
        "what is taken out of the queue comes back",
        "consumer/domain/batching.py",
        "        self._arrived = deque(others)\n",
        "",
        kind="deferred",
    ),
    wrong(
        "the checkpoint passes what is in flight",
        "consumer/domain/frontier.py",
        "elif at and ends[at - 1] == start - 1:",
        "elif at:",
    ),
    wrong(
        "a hand-over forgets what was settled further on",
        "consumer/domain/frontier.py",
        "for run in self._beyond_re_read():",
        "for run in ():",
    ),
    wrong(
        "the checkpoint forgets the deferred keys",
        "consumer/worker/shard/subscription.py",
        "self.frontier.snapshot(most, self.deferred.snapshot())",
        "self.frontier.snapshot(most)",
        kind="deferred",
    ),
    wrong(
        "records read again come first in every batch",
        "consumer/worker/shard/subscription.py",
        "self._settle_read_again([entry for entry in entries if entry.position < 0])",
        "self._settle_read_again(entries[: len(entries) - len(tracked)])",
    ),
    wrong(
        "the books of an idle shard stay charged",
        "consumer/worker/shard/subscription.py",
        "        self._charge_books()  # an idle shard reads no page that would give back what they took\n",
        "",
    ),
    wrong(
        "catch-up takes what is settled",
        "consumer/domain/deferred.py",
        "        return digest in self.in_pass and number >= self._entries[digest].first\n",
        "        return digest in self.in_pass\n",
        kind="deferred",
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
        "consumer/worker/shard/shard_order.py",
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
        "consumer/worker/shard/window_order.py",
        "return not (self._no_more and self._windowed.is_open)",
        "return True",
        kind="windows",
    ),
)


# Those that take hundreds of plans to be noticed.
RARE = {
    "records read again come first in every batch",
    "what does not fit forgets what waits behind it",
    "a record may expire during the back-off or in the queue",
    "retries take all slots",
    "catch-up takes what is settled",
    "keys without a record in the letter of what is too old are forgotten",
    "a letter that was refused counts as sent",
    "a state is kept before its records are settled",
}


@pytest.mark.parametrize(
    "mutant",
    [pytest.param(one, id=one.name, marks=[pytest.mark.soak] if one.name in RARE else []) for one in WRONG],
)
def test_the_model_notices(mutant: Mutant) -> None:
    assert occurrences(mutant) == {1}
    here = Path(__file__).parents[3]
    with applied(mutant) as folder:
        environment = {
            **os.environ,
            **NONE_ELSE,
            "PYTHONPATH": f"{folder}{os.pathsep}{here}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "tests.unit.worker.dispatch_world", mutant.family]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout
    assert "plan=Plan(" in done.stderr, done.stderr
