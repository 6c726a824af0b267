"""Key-ready batching against a naive model."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.domain import batching
from consumer.domain.batching import Entry, KeyReadyQueue, PageHold
from tests.unit.domain.support import entry


class QueueMachine(RuleBasedStateMachine):
    """The model is a list of what waits and a list of the batches under way."""

    def __init__(self) -> None:
        super().__init__()
        self.lined: set[int] = set()
        self.queue = KeyReadyQueue(self._on_line)
        self.waiting: list[Entry] = []
        self.batches: list[list[Entry]] = []
        self.done: list[Entry] = []
        self.count = 0

    def _on_line(self, one: Entry) -> None:
        assert one.key in self.busy() or one.key in self.taking
        assert one.position not in self.lined, "a record waits in line once only"
        self.lined.add(one.position)

    def busy(self) -> set[bytes]:
        return {one.key for batch in self.batches for one in batch}

    taking: set[bytes] = set()  # noqa: RUF012  # every key may be in the batch that is being formed

    @rule(keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12))
    def add(self, keys: list[bytes]) -> None:
        entries = [entry(self.count + index, key) for index, key in enumerate(keys)]
        self.count += len(entries)
        self.queue.add(iter(entries))
        self.waiting += entries

    @rule(limit=st.integers(1, 8))
    def take(self, limit: int) -> None:
        busy = self.busy()
        ready = [one for one in self.waiting if one.key not in busy]
        self.taking = {one.key for one in self.waiting}
        batch = self.queue.take(limit)
        self.taking = set()
        assert [one.position for one in batch] == sorted(one.position for one in batch), "stream order"
        assert len(batch) == min(limit, len(ready)), "as many as are ready, never more"
        assert not {one.key for one in batch} & busy, "a key is in one batch at a time"
        for key in {one.key for one in batch}:
            taken = [one for one in batch if one.key == key]
            assert taken == [one for one in self.waiting if one.key == key][: len(taken)], "oldest of the key first"
        self.waiting = [one for one in self.waiting if one not in batch]
        if batch:
            self.batches.append(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        batch = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        self.queue.free({one.key for one in batch})
        self.done += batch

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.busy_keys == len(self.busy())
        if not self.queue.may_have_ready:
            assert not [one for one in self.waiting if one.key not in self.busy()]

    @invariant()
    def lines(self) -> None:
        behind = list(self.queue.waiting_behind(self.busy()))
        assert all(one in self.waiting and one.key in self.busy() for one in behind)
        for key in self.busy():
            line = list(self.queue.waiting_behind([key]))
            assert line == [one for one in self.waiting if one.key == key][: len(line)]

    def teardown(self) -> None:
        """After all batches are freed everything comes out, each key in order."""
        while self.batches or self.waiting:
            for batch in self.batches:
                self.queue.free({one.key for one in batch})
                self.done += batch
            self.batches = []
            self.take(3)
        assert len(self.queue) == 0
        assert sorted(one.position for one in self.done) == list(range(self.count))
        assert self.queue.busy_keys == 0
        assert not self.queue.may_have_ready


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase


def test_full_lines_show_in_waiting_behind_and_on_line() -> None:
    """Records behind a busy key are reported once, in order, and only while other records are looked for."""
    lined: list[int] = []
    queue = KeyReadyQueue(lambda one: lined.append(one.position))
    queue.add([entry(0, b"a"), entry(1, b"a"), entry(2, b"b"), entry(3, b"a")])
    assert [one.position for one in queue.take(1)] == [0]
    assert lined == []
    assert [one.position for one in queue.take(5)] == [2]
    assert lined == [1, 3]
    assert [one.position for one in queue.waiting_behind([b"a", b"b", b"unknown"])] == [1, 3]
    assert queue.take(5) == []
    queue.free([b"a"])
    assert list(queue.waiting_behind([b"a"])) == []
    assert [one.position for one in queue.take(5)] == [1, 3]


class CountingDeque(deque):  # type: ignore[type-arg]
    """Counts every record that is moved out of a deque."""

    moves = 0

    def popleft(self) -> object:
        type(self).moves += 1
        return super().popleft()


@pytest.mark.parametrize("pattern", ["hot", "hot and one cold", "two hot"])
def test_hot_keys_cost_constant_work_a_record(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 records of a hot key with batches of one: at most a handful of moves for each record."""
    monkeypatch.setattr(batching, "deque", CountingDeque)
    monkeypatch.setattr(CountingDeque, "moves", 0)
    lined = 0

    def on_line(_: Entry) -> None:
        nonlocal lined
        lined += 1

    total = 100_000
    queue = KeyReadyQueue(on_line)
    keys = {"hot": [b"h"], "hot and one cold": [b"h"] * 999 + [b"c"], "two hot": [b"h", b"i"]}[pattern]
    hold, shared = PageHold(total + 1, lambda: None), entry(0, b"").record
    queue.add(Entry(position, keys[position % len(keys)], shared, hold) for position in range(total))
    under_way: deque[list[Entry]] = deque()
    seen = 0
    while len(queue) or under_way:
        batch = queue.take(1)
        if batch:
            under_way.append(batch)
            seen += 1
        if not batch or len(under_way) == 2:
            queue.free({one.key for one in under_way.popleft()})
    assert seen == total
    assert lined <= total
    assert CountingDeque.moves <= 4 * total


def test_page_holds_release_once_with_their_last_record() -> None:
    """A page's memory is given back exactly when its last record lets go."""
    released: list[str] = []
    hold = PageHold(3, lambda: released.append("page"))
    hold.let_go()
    hold.let_go()
    assert released == []
    hold.let_go()
    assert released == ["page"]
