"""What one pass over the lease rows tells."""

from __future__ import annotations

from consumer.domain.lease import LeaseRow
from consumer.domain.lease_overview import LeaseOverview


def test_one_pass_tells_all_that_a_look_asks() -> None:
    mine = LeaseRow("mine", owner="me", epoch=2, state="open")
    behind = LeaseRow("behind", owner="other", epoch=1, state="draining")
    free = LeaseRow("free")
    finished = LeaseRow("finished", owner="me", epoch=1, state="done")
    long_gone = LeaseRow("long gone", owner="gone", epoch=1, state="done")
    corrupt = LeaseRow("corrupt", owner="third", epoch=3, state="open", corrupt="no frontier")
    rows = [mine, behind, free, finished, long_gone, corrupt]
    found = LeaseOverview.of(rows, "me", lambda row: row.epoch == 1)
    assert found.owners == {"me", "other", "third"}, "a finished row names its last owner for ever"
    assert (found.mine, found.behind) == ((mine,), (behind,))
    assert found.corrupt == {"corrupt": "no frontier"}
