"""Key-ready batching against a naive model."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from consumer.domain import batching
from consumer.domain.batching import Batch, Entry, KeyReadyQueue, PageHold
from tests.unit.domain.support import entry, record

NO_LIMIT = 1 << 40
SIZE = 1000  # of a record's event, in the sized tests


def sized(position: int, key: bytes, page: PageHold) -> Entry:
    one = record(position + 1, keys=b"x" * SIZE)
    one.dynamodb.Keys = Raw(b"x" * (SIZE - record(position + 1, keys=b"").event_size))
    assert one.event_size == SIZE
    return Entry(position, key, one, page)


class QueueMachine(RuleBasedStateMachine):
    """The model is a list of what waits and a list of the batches under way. Records are of one size; one page each."""

    def __init__(self) -> None:
        super().__init__()
        self.lined: set[int] = set()
        self.queue = KeyReadyQueue(self._on_line)
        self.waiting: list[Entry] = []
        self.batches: list[Batch] = []
        self.gathering: Batch | None = None
        self.done: list[Entry] = []
        self.count = 0

    def _on_line(self, one: Entry) -> None:
        assert one.key in self.busy() or one.key in self.taking
        self.lined.add(one.position)

    def busy(self) -> set[bytes]:
        return {one.key for batch in self.batches for one in batch.entries}

    taking: set[bytes] = set()  # noqa: RUF012  # every key may be in the batch that is being formed

    @rule(keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12))
    def add(self, keys: list[bytes]) -> None:
        page = PageHold(len(keys), lambda: None, size=SIZE * len(keys))
        entries = [sized(self.count + index, key, page) for index, key in enumerate(keys)]
        self.count += len(entries)
        self.queue.add(iter(entries))
        self.waiting += entries

    @rule(limit=st.integers(1, 8), room=st.integers(0, 10))
    def take(self, limit: int, room: int) -> None:
        self.fill(Batch(), limit, room)

    @precondition(lambda self: self.gathering in self.batches)
    @rule(limit=st.integers(1, 8), room=st.integers(0, 10))
    def gather(self, limit: int, room: int) -> None:
        """A batch that was not full is filled up by what arrived since. No other is formed meanwhile."""
        batch = self.gathering
        assert batch is not None
        if len(batch.entries) < limit:
            self.batches.remove(batch)
            self.fill(batch, limit, room)

    def fill(self, batch: Batch, limit: int, room: int) -> None:
        """``room`` is how many records fit into the bytes allowed; one always does."""
        busy, held = self.busy(), list(batch.entries)
        ready = [one for one in self.waiting if one.key not in busy]
        self.taking = {one.key for one in [*self.waiting, *held]}
        full = self.queue.fill(batch, limit, room * SIZE)
        self.taking = set()
        most = min(limit, max(1, room))
        entries = batch.entries
        assert [one.position for one in entries] == sorted(one.position for one in entries), "stream order"
        assert len(entries) == min(most, len(held) + len(ready)), "as many as are ready, never more"
        assert full == (len(entries) == limit or len(held) + len(ready) > len(entries))
        assert set(batch.keys) == {one.key for one in entries}
        assert not set(batch.keys) & busy, "a key is in one batch at a time"
        candidates = held + [one for one in self.waiting if one not in held]
        for key in batch.keys:
            taken = [one for one in entries if one.key == key]
            assert taken == [one for one in candidates if one.key == key][: len(taken)], "oldest of the key first"
        self.waiting = sorted((one for one in candidates if one not in entries), key=lambda one: one.position)
        if entries:
            self.batches.append(batch)
        self.gathering = None if full else batch

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        batch = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        self.queue.free(batch.keys)
        self.done += batch.entries

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting)
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
                self.queue.free(batch.keys)
                self.done += batch.entries
            self.batches = []
            self.take(3, 5)
        assert len(self.queue) == 0
        assert sorted(one.position for one in self.done) == list(range(self.count))
        assert not self.queue.may_have_ready


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase


def take(queue: KeyReadyQueue, limit: int, max_bytes: int = NO_LIMIT) -> list[int]:
    batch = Batch()
    queue.fill(batch, limit, max_bytes)
    return [one.position for one in batch.entries]


def test_full_lines_show_in_waiting_behind_and_on_line() -> None:
    """Records behind a busy key are reported once, in order, and only while other records are looked for."""
    lined: list[int] = []
    queue = KeyReadyQueue(lambda one: lined.append(one.position))
    queue.add([entry(0, b"a"), entry(1, b"a"), entry(2, b"b"), entry(3, b"a")])
    assert take(queue, 1) == [0]
    assert lined == []
    assert take(queue, 5) == [2]
    assert lined == [1, 3]
    assert [one.position for one in queue.waiting_behind([b"a", b"b", b"unknown"])] == [1, 3]
    assert take(queue, 5) == []
    queue.free([b"a"])
    assert list(queue.waiting_behind([b"a"])) == []
    assert take(queue, 5) == [1, 3]


def test_a_batch_stops_before_its_event_is_too_large() -> None:
    queue = KeyReadyQueue(lambda _: None)
    page = PageHold(4, lambda: None, size=4 * SIZE)
    queue.add([sized(0, b"a", page), sized(1, b"b", page), sized(2, b"a", page), sized(3, b"c", page)])
    batch = Batch()
    assert queue.fill(batch, 10, 2 * SIZE), "full: one more would be too large"
    assert [one.position for one in batch.entries] == [0, 1]
    assert take(queue, 10) == [3], "the key of record 2 is busy"
    queue.free(batch.keys)
    assert take(queue, 10, SIZE - 1) == [2], "a record that is too large goes alone"


def test_what_does_not_fit_goes_before_what_came_later() -> None:
    queue = KeyReadyQueue(lambda _: None)
    page = PageHold(3, lambda: None, size=3 * SIZE)
    queue.add([sized(0, b"a", page), sized(1, b"b", page), sized(2, b"c", page)])
    assert take(queue, 10, SIZE) == [0]
    queue.add([sized(3, b"b", page), sized(4, b"d", page)])
    assert take(queue, 10) == [1, 2, 3, 4]


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
    hold, shared = PageHold(total + 1, lambda: None, size=0), entry(0, b"").record
    queue.add(Entry(position, keys[position % len(keys)], shared, hold) for position in range(total))
    under_way: deque[Batch] = deque()
    seen = 0
    while len(queue) or under_way:
        batch = Batch()
        queue.fill(batch, 1, NO_LIMIT)
        if batch.entries:
            under_way.append(batch)
            seen += 1
        if not batch.entries or len(under_way) == 2:
            queue.free(under_way.popleft().keys)
    assert seen == total
    assert lined <= total
    assert CountingDeque.moves <= 4 * total


def test_page_holds_release_once_with_their_last_record() -> None:
    """A page's memory is given back exactly when its last record lets go."""
    released: list[str] = []
    hold = PageHold(3, lambda: released.append("page"), size=0)
    hold.let_go()
    hold.let_go()
    assert released == []
    hold.let_go()
    assert released == ["page"]
