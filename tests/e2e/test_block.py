"""on_failure.order: block: a bad key waits in the stream for a handler that is mended, and leaves no letter behind."""

from __future__ import annotations

import signal

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import made
from tests.e2e.fleet import Fleet, out_of_order, wait_until
from tests.e2e.hurt import has_event


def test_a_blocked_key_waits_in_place_until_the_handler_is_mended(aws: Aws, fleet: Fleet) -> None:
    """A deploy mends it: the next owner tries what the one before has left in the stream."""
    dead = made("s3", aws, fleet, order="block")
    blocked = dead.poison(range(1), range(1, 4))
    good = aws.write(fleet.table, 5, range(1, 3))
    worker = fleet.start("w1", **dead.overrides)
    fleet.wait_for(good)
    wait_until(lambda: has_event(worker, "key.blocked"), 30, "the bad key waits")
    later = aws.write(fleet.table, 5, range(3, 4))
    fleet.wait_for(later)
    assert fleet.handled() == good | later, "no record of the bad key was passed over"
    assert worker.metric("stream_consumer_dead_letters_total") == 0
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0

    mended = fleet.start("w2", {"MENDED": "yes"}, **dead.overrides)
    fleet.wait_for(good | later | blocked)
    assert out_of_order(fleet.journal()) == 0
    assert [line[1] for line in fleet.journal() if line[0] == "bad000"] == [1, 2, 3]
    assert mended.metric("stream_consumer_dead_letters_total") == 0
    found = dead.list()
    assert (found["letters"], found["parked_keys"]) == (0, [])
