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
from tests.unit.domain.support import Account, entry, record

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
        self.queue = KeyReadyQueue()
        self.pages: dict[int, PageHold] = {}
        self.retried: set[bytes] = set()
        self.waiting: list[Entry] = []
        self.batches: list[Batch] = []
        self.gathering: Batch | None = None
        self.done: list[Entry] = []
        self.count = 0

    def busy(self) -> set[bytes]:
        return {one.key for batch in self.batches for one in batch.entries}

    @rule(keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12))
    def add(self, keys: list[bytes]) -> None:
        page = PageHold(Account(), SIZE * len(keys), left=len(keys), event_bytes=SIZE * len(keys))
        entries = [sized(self.count + index, key, page) for index, key in enumerate(keys)]
        self.pages |= {one.position: page for one in entries}
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
        full = self.queue.fill(batch, limit, room * SIZE)
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
        self.queue.end_retry(batch.keys)
        self.queue.free(batch.keys)
        self.done += batch.entries

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        batch = self.batches[data.draw(st.integers(0, len(self.batches) - 1))]
        if batch is self.gathering:
            self.gathering = None  # it has been run: nothing more is gathered for it
        self.queue.retry(batch.keys)
        self.retried |= set(batch.keys)

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting)
        if not self.queue.may_have_ready:
            assert not [one for one in self.waiting if one.key not in self.busy()]

    @invariant()
    def copies(self) -> None:
        """What waits behind a key that is being retried does not pin its page; what never did still does."""
        for one in self.waiting:
            copied = one.hold is not self.pages[one.position]
            assert one.key in self.retried or not copied
        assert self.queue.retrying_keys <= len(self.busy())

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


def test_records_behind_a_key_that_is_retried_are_copied_out_of_their_pages() -> None:
    """Those that wait already and those that come later, each once; those of other keys stay slices."""
    queue, account = KeyReadyQueue(), Account()
    page = PageHold(account, 100, left=6, event_bytes=0)
    keys = (b"a", b"a", b"b", b"b", b"c", b"a")
    entries = [Entry(position, key, record(position + 1), page) for position, key in enumerate(keys)]
    queue.add(entries[:4])
    assert take(queue, 1) == [0]
    assert take(queue, 1) == [2]
    queue.retry([b"a"])
    assert queue.retrying_keys == 1
    queue.add(entries[4:])
    assert take(queue, 5) == [4], "the other records wait for their keys"
    assert [one.position for one in entries if one.hold is not page] == [1, 5]
    assert page.left == 4
    queue.retry([b"a"])
    assert page.left == 4, "a copy is not copied again"
    queue.end_retry([b"a"])
    assert queue.retrying_keys == 0
    queue.free([b"a"])
    assert take(queue, 5) == [1, 5]
    for one in entries:
        one.hold.release()
    assert account.held == -100, "copies give back what they took; the page was charged by the reader"


def test_a_batch_stops_before_its_event_is_too_large() -> None:
    queue = KeyReadyQueue()
    page = PageHold(Account(), 0, left=4, event_bytes=4 * SIZE)
    queue.add([sized(0, b"a", page), sized(1, b"b", page), sized(2, b"a", page), sized(3, b"c", page)])
    batch = Batch()
    assert queue.fill(batch, 10, 2 * SIZE), "full: one more would be too large"
    assert [one.position for one in batch.entries] == [0, 1]
    assert take(queue, 10) == [3], "the key of record 2 is busy"
    queue.free(batch.keys)
    assert take(queue, 10, SIZE - 1) == [2], "a record that is too large goes alone"


def test_what_does_not_fit_goes_before_what_came_later() -> None:
    queue = KeyReadyQueue()
    page = PageHold(Account(), 0, left=3, event_bytes=3 * SIZE)
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
    total = 100_000
    queue = KeyReadyQueue()
    keys = {"hot": [b"h"], "hot and one cold": [b"h"] * 999 + [b"c"], "two hot": [b"h", b"i"]}[pattern]
    hold, shared = PageHold(Account(), 0, left=total + 1, event_bytes=0), entry(0, b"").record
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
    assert CountingDeque.moves <= 4 * total


def test_page_holds_release_once_with_their_last_record() -> None:
    """A page's memory is given back exactly when its last record lets go."""
    account = Account()
    account.charge(700)
    hold = PageHold(account, 700, left=3, event_bytes=0)
    hold.release()
    hold.release()
    assert account.held == 700
    hold.release()
    assert account.held == 0
