"""The lease protocol, searched exhaustively: no violation with its rules, one without each of the two."""

import pytest

from tests.simulation.protocol_model import Rules, search


@pytest.mark.parametrize("last_epoch", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_the_protocol_holds(last_epoch: int) -> None:
    """No reachable state lets a worker start a call after its lease has moved on."""
    states, way = search(Rules(last_epoch=last_epoch))
    assert way is None, way
    assert states > 10_000, "the model must not be trivial"


def test_stamping_at_the_answer_breaks_it() -> None:
    """Counting the validity from the answer, as the KCL does, lets a stale owner start work."""
    _, way = search(Rules(stamp_before=False))
    assert way is not None


def test_taking_without_a_fence_breaks_it() -> None:
    """A renewal on its way while the lease is taken would revive the old owner."""
    _, way = search(Rules(fence=False))
    assert way is not None
