"""Key-ready batching against a naive model."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from consumer.domain import batching
from consumer.domain.batching import Batch, Entry, KeyBounds, KeyReadyQueue, PageHold
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
        self.bounds = KeyBounds(line_records=3)
        self.max_waiting = 5 * SIZE
        self.queue = KeyReadyQueue(self.max_waiting, self.bounds)
        self.pages: dict[int, PageHold] = {}
        self.failed: set[bytes] = set()  # keys that ever failed
        self.failing: set[bytes] = set()
        self.waiting: list[Entry] = []
        self.batches: list[Batch] = []
        self.gathering: Batch | None = None
        self.taken_out: dict[bytes, list[Entry]] = {}
        self.done: list[Entry] = []
        self.count = 0
        self.read_again = 0

    def busy(self) -> set[bytes]:
        return {key for batch in self.batches for key in batch.keys}

    def behind(self, key: bytes) -> list[Entry]:
        return [one for one in self.waiting if one.key == key]

    @rule(keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=12))
    def add(self, keys: list[bytes]) -> None:
        page = PageHold(Account(), SIZE * len(keys), left=len(keys), event_bytes=SIZE * len(keys))
        keys = [key for key in keys if key not in self.taken_out]  # the shard leaves them to their entry
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
        numbers = [int(one.record.sequence_number) for one in entries]
        assert numbers == sorted(numbers), "stream order"
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
        if not full:
            self.overflows_exactly()

    def overflows_exactly(self) -> None:
        """Whatever waits behind a failing key was moved there now, so it is counted and copied out."""
        lines = {key: self.behind(key) for key in self.failing}
        sizes = {key: sum(one.hold.charged for one in line) for key, line in lines.items()}
        assert self.queue.waiting_bytes == sum(sizes.values())
        full = {key for key, line in lines.items() if len(line) > self.bounds.line_records}
        if full or sum(sizes.values()) <= self.max_waiting:
            assert set(self.queue.overflowing()) == full
        else:
            (longest,) = self.queue.overflowing()
            assert sizes[longest] == max(sizes.values())

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        """All of a batch is settled, or one of its keys."""
        batch = data.draw(st.sampled_from(self.batches))
        keys = set(batch.keys) if data.draw(st.booleans()) else {data.draw(st.sampled_from(sorted(batch.keys)))}
        if batch is self.gathering:
            self.gathering = None
        self.queue.end_failing(keys)
        self.queue.free(keys)
        self.failing -= keys
        self.done += [one for one in batch.entries if one.key in keys]
        batch.entries = [one for one in batch.entries if one.key not in keys]
        batch.keys = {key: None for key in batch.keys if key not in keys}
        if not batch.keys:
            self.batches.remove(batch)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), some=st.booleans())
    def fail(self, data: st.DataObject, *, some: bool) -> None:
        batch = self.one_that_runs(data)
        keys = sorted(batch.keys)
        if some:
            keys = keys[: data.draw(st.integers(1, len(keys)))]
        self.queue.fail(keys)
        self.failing |= set(keys)
        self.failed |= set(keys)

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        """The keys of a batch fail no longer, and their batch goes on."""
        keys = set(self.one_that_runs(data).keys)
        self.queue.end_failing(keys)
        self.failing -= keys

    def one_that_runs(self, data: st.DataObject) -> Batch:
        batch = data.draw(st.sampled_from(self.batches))
        if batch is self.gathering:
            self.gathering = None  # nothing more is gathered for it
        return batch

    @precondition(lambda self: self.failing)
    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        """A key is deferred: whatever waits behind it leaves, in order."""
        key = data.draw(st.sampled_from(sorted(self.failing)))
        taken = self.queue.take_out([key])[key]
        assert taken == self.behind(key)
        self.waiting = [one for one in self.waiting if one.key != key]
        self.taken_out.setdefault(key, []).extend(taken)
        assert key not in self.queue.overflowing()

    @precondition(lambda self: self.taken_out)
    @rule(data=st.data())
    def catch_up(self, data: st.DataObject) -> None:
        """Its records come back, although newer ones of other keys wait."""
        key = data.draw(st.sampled_from(sorted(self.taken_out)))
        entries = []
        for one in self.taken_out.pop(key):
            self.read_again += 1
            position = self.read_again - 1_000_000
            page = self.pages[position] = PageHold(Account(), SIZE, left=1, event_bytes=SIZE)
            entries.append(Entry(position, key, one.record, page))
        self.queue.add_read_again(entries)
        self.waiting = sorted([*self.waiting, *entries], key=lambda one: one.position)

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.failing_keys == len(self.failing)
        assert set(self.queue.overflowing()) <= self.failing
        if not self.queue.may_have_ready:
            assert not [one for one in self.waiting if one.key not in self.busy()]

    @invariant()
    def copies(self) -> None:
        """What waits behind a failing key does not pin its page; what never did still does."""
        for one in self.waiting:
            copied = one.hold is not self.pages[one.position]
            assert one.key in self.failed or not copied

    def teardown(self) -> None:
        """After all batches are freed everything comes out, each key in order."""
        while self.batches or self.waiting:
            for batch in self.batches:
                self.queue.end_failing(batch.keys)
                self.queue.free(batch.keys)
                self.done += batch.entries
            self.batches, self.failing = [], set()
            self.take(3, 5)
        assert len(self.queue) == self.queue.failing_keys == self.queue.waiting_bytes == 0
        left = [one for entries in self.taken_out.values() for one in entries]
        assert sorted(int(one.record.sequence_number) for one in [*self.done, *left]) == list(range(1, self.count + 1))
        for key in {one.key for one in self.done}:
            numbers = [int(one.record.sequence_number) for one in self.done if one.key == key]
            assert numbers == sorted(numbers), "each key in order"
        assert not self.queue.may_have_ready


QueueMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase


def take(queue: KeyReadyQueue, limit: int, max_bytes: int = NO_LIMIT) -> list[int]:
    batch = Batch()
    queue.fill(batch, limit, max_bytes)
    return [one.position for one in batch.entries]


def test_records_behind_a_failing_key_are_copied_out_of_their_pages() -> None:
    """Those that wait already and those that come later, each once; those of other keys stay slices."""
    queue, account = KeyReadyQueue(), Account()
    page = PageHold(account, 100, left=6, event_bytes=0)
    keys = (b"a", b"a", b"b", b"b", b"c", b"a")
    entries = [Entry(position, key, record(position + 1), page) for position, key in enumerate(keys)]
    queue.add(entries[:4])
    assert take(queue, 1) == [0]
    assert take(queue, 1) == [2]
    queue.fail([b"a"])
    assert queue.failing_keys == 1
    queue.add(entries[4:])
    assert take(queue, 5) == [4], "the other records wait for their keys"
    assert [one.position for one in entries if one.hold is not page] == [1, 5]
    assert page.left == 4
    assert queue.waiting_bytes == sum(entries[index].hold.charged for index in (1, 5)) == account.held
    queue.fail([b"a"])
    assert page.left == 4, "a copy is not copied again"
    queue.end_failing([b"a"])
    assert queue.failing_keys == queue.waiting_bytes == 0
    queue.free([b"a"])
    assert take(queue, 5) == [1, 5]
    for one in entries:
        one.hold.release()
    assert account.held == -100, "copies give back what they took; the page was charged by the reader"


def line_behind(*sizes: int, bounds: KeyBounds, max_waiting: int = NO_LIMIT) -> tuple[KeyReadyQueue, list[bytes]]:
    """A queue with two failing keys, behind which records of these sizes wait in turns; and what overflows."""
    queue = KeyReadyQueue(max_waiting, bounds)
    page = PageHold(Account(), 0, left=len(sizes) + 2, event_bytes=0)
    queue.add([sized(0, b"a", page), sized(1, b"b", page)])
    take(queue, 2)
    queue.fail([b"a", b"b"])
    for position, size in enumerate(sizes, 2):
        one = sized(position, b"ab"[position % 2 : position % 2 + 1], page)
        one.record.dynamodb.Keys = Raw(b"x" * size)
        queue.add([one])
    take(queue, len(sizes))
    return queue, queue.overflowing()


@pytest.mark.parametrize(
    ("sizes", "bounds", "max_waiting", "overflows"),
    [
        ((10, 10, 10, 10), KeyBounds(line_records=2), NO_LIMIT, []),
        ((10, 10, 10, 10, 10), KeyBounds(line_records=2), NO_LIMIT, [b"a"]),
        ((10, 10, 10, 10, 10, 10), KeyBounds(line_records=2), NO_LIMIT, [b"a", b"b"]),
        ((10, 50_000), KeyBounds(line_bytes=60_000), NO_LIMIT, []),
        ((10, 50_000, 10, 50_000), KeyBounds(line_bytes=60_000), NO_LIMIT, [b"b"]),
        ((10, 50_000, 20_000), KeyBounds(), 60_000, [b"b"]),
        ((50_000, 10, 10, 20_000), KeyBounds(), 60_000, [b"a"]),
        ((20_000, 20_000), KeyBounds(), 60_000, []),
    ],
)
def test_what_waits_behind_a_failing_key_is_bounded(
    sizes: tuple[int, ...], bounds: KeyBounds, max_waiting: int, overflows: list[bytes]
) -> None:
    """By records and by bytes for each, and by bytes for all of them, of which the longest line goes first."""
    queue, found = line_behind(*sizes, bounds=bounds, max_waiting=max_waiting)
    assert found == overflows
    for key in found:
        assert queue.take_out([key])[key]
        assert queue.take_out([key]) == {key: []}
    assert queue.overflowing() == []


def test_a_key_that_does_not_fail_never_overflows() -> None:
    """However much waits behind it: its call is under way and ends."""
    queue = KeyReadyQueue(0, KeyBounds(line_records=1, line_bytes=1))
    page = PageHold(Account(), 0, left=9, event_bytes=0)
    queue.add([sized(position, b"a", page) for position in range(9)])
    take(queue, 1)
    take(queue, 9)
    assert queue.overflowing() == []
    queue.fail([b"a"])
    assert queue.overflowing() == [b"a"]
    queue.end_failing([b"a"])
    assert queue.overflowing() == []


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


class CountingDeque(deque):  # type: ignore[type-arg]  # of anything
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
