"""Where an owner goes on with a shard, and which keys it holds back."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow
from consumer.worker.shard.shard_worker import resume_from


class Parents:
    """The lineage of a child whose parents hold these keys back."""

    def __init__(self, *held_back: tuple[str, ...] | None) -> None:
        self._held_back = list(held_back)

    def has_children(self, shard_id: str) -> bool:
        return False

    def keys_held_back(self, parents: Collection[str]) -> list[tuple[str, ...] | None]:
        assert list(parents) == ["p", "q"]
        return self._held_back

    async def is_gone(self, shard_id: str) -> bool:
        return False

    async def register_children(self, parent: LeaseRow) -> None: ...

    def shard_settled(self, shard_id: str) -> None: ...


NEW = FrontierSnapshot()


def child(frontier: FrontierSnapshot = NEW) -> LeaseRow:
    return LeaseRow("c", ("p", "q"), state="open", frontier=frontier)


@pytest.mark.parametrize(
    ("held_back", "digests"),
    [
        ((), ()),
        (((),), ()),
        ((("b", "a"),), ("a", "b")),
        ((("b",), ("a", "b")), ("a", "b")),
        ((None, ("a",)), ("a",)),
    ],
)
def test_a_child_that_begins_holds_back_what_its_parents_have_deferred(
    held_back: tuple[tuple[str, ...] | None, ...], digests: tuple[str, ...]
) -> None:
    """From its first record on, each once, and in an order that does not depend on theirs."""
    assert resume_from(child(), Parents(*held_back), in_order=False) == FrontierSnapshot(
        deferred=tuple(DeferredKey(digest, BEGINNING) for digest in digests)
    )


@pytest.mark.parametrize(
    "frontier",
    [
        FrontierSnapshot(first="5"),
        FrontierSnapshot("9", "5", (("11", "12"),)),
        FrontierSnapshot("9", "5", deferred=(DeferredKey("b", "6"),)),
        FrontierSnapshot(deferred=(DeferredKey("b", BEGINNING),)),
    ],
)
def test_a_child_that_was_begun_goes_on_as_it_is_stored(frontier: FrontierSnapshot) -> None:
    """What it waits for was stored with its first record, and a key that is through must not be deferred again."""
    assert resume_from(child(frontier), Parents(("a",)), in_order=False) == frontier


def test_in_the_order_of_the_shard_no_key_is_behind_the_others() -> None:
    """Windows were opened: everything from the oldest unsettled record on is handled once more. Nothing is held back,
    which is safe, because a shard that has this order from its beginning waits for its parents as a whole."""
    stored = FrontierSnapshot("90", "5", (("95", "96"),), (DeferredKey("a", "7"), DeferredKey("b", "6", passed=True)))
    assert resume_from(child(stored), Parents(), in_order=True) == FrontierSnapshot(first="6")
    untouched = FrontierSnapshot("90", "5", (("95", "96"),))
    assert resume_from(child(untouched), Parents(), in_order=True) == untouched
    assert resume_from(child(), Parents(("a",)), in_order=True) == FrontierSnapshot()
