"""Batching and tumbling windows with real processes, a real table and Lambda code."""

import signal
import time

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, duplicates, out_of_order, wait_until


def test_window_totals_are_exact_although_daemons_are_killed(aws: Aws, fleet: Fleet) -> None:
    """State and checkpoint are one write: records may be handled again after a SIGKILL, but never count twice."""
    settings = {
        "handler": {"target": "journal_handler:window_handler"},
        "batch": {"tumbling_window": "3s", "parallelization_factor": 1, "batch_size": 10},
        "checkpoint": {"interval": "100ms"},
    }
    slow = {"HANDLER_SECONDS": "0.03"}
    written = 0
    fleet.start("w0", slow, **settings)
    for number, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
        deadline, calls = time.monotonic() + 2.5, len(fleet.journal())
        while time.monotonic() < deadline or len(fleet.journal()) < calls + 5:
            aws.write(fleet.table, 5, range(written // 5 + 1, written // 5 + 2))
            written += 5
            time.sleep(0.05)
        fleet.workers[-1].send(end)
        fleet.workers[-1].wait()
        fleet.start(f"w{number + 1}", slow, **settings)

    def totals() -> dict[tuple[str, str], int]:
        """What the final call of each window was told; a window that is closed twice is told the same."""
        finals = [line for line in fleet.journal() if line[4]]
        return {(shard, window): count for shard, window, count, _, _ in finals}

    closers: list[float] = []

    def all_closed() -> bool:
        if not closers or time.monotonic() - closers[-1] > 4:  # a record of a later window closes the one before
            closers.append(time.monotonic())
            aws.poison(fleet.table, f"closer-{closers[-1]}", 1)
        return sum(totals().values()) >= written

    wait_until(all_closed, 60, "every window is closed")
    assert written <= sum(totals().values()) <= written + len(closers)
    finals = [line for line in fleet.journal() if line[4]]
    assert len({(shard, window, count) for shard, window, count, _, _ in finals}) == len(totals())


def test_a_batching_window_makes_fewer_calls(aws: Aws, fleet: Fleet) -> None:
    """Forty records that trickle in are handled in a few calls, once and in order."""
    worker = fleet.start("w1", batch={"batching_window": "1s", "batch_size": 1000, "parallelization_factor": 1})
    wait_until(worker.owned, 30, "the shard is owned")
    expected = set()
    for version in range(1, 21):
        expected |= aws.write(fleet.table, 2, range(version, version + 1))
        time.sleep(0.05)
    fleet.wait_for(expected)
    calls = {line[5] for line in fleet.journal()}
    assert len(calls) <= 4
    assert duplicates(fleet.journal()) == out_of_order(fleet.journal()) == 0
