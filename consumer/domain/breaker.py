"""When the handler of a shard fails for nearly everything, and when it is well again. Pure.

One poison record is for the dead letters. When most of a shard fails, it is the handler, or what it depends on, and to
give the records up would drain a table into a queue. Then the breaker opens: nothing is started but a *probe* now and
then, and three good ones in a row close it.

What is counted are keys, each when it begins to fail and when it gets through: a key that fails for a day is one, and a
call of a hundred keys that fails as a whole says nothing before it is cut. They are counted by the batch that they came
in: a batch that is cut ends with its failing keys, and those alone would look like an outage.
"""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["closed", "probing", "open"]
Cause = Literal["keys_fail", "not_invoked"]

OUTCOMES = 200  # keys whose outcomes count: the latest ones,
WINDOW = 60.0  # of so many seconds
KEYS = 20  # that must be among those that failed: a hot key is no outage
UNREACHABLE_MANY = 5.0  # seconds in which no call reaches user code, with records of so many keys or more,
UNREACHABLE = 30.0  # and with fewer
FIRST_PAUSE, MOST_PAUSE = 30.0, 600.0  # seconds before a probe
GOOD_PROBES = 3


class _Tally(msgspec.Struct):
    """The keys of one batch, as far as they have come. A struct, because one is made for every batch."""

    at: float
    handled: int = 0
    failed: int = 0
    keys: set[bytes] = msgspec.field(default_factory=set)


class Breaker:
    """Of one shard, for as long as it has this owner. ``now`` is always a monotonic time in seconds.

    A *batch* is anything hashable that tells batches apart. ``state`` is ``probing`` from the start of a probe until
    one fails. ``cause`` says why it opened last, ``failed`` and ``outcomes`` are the counts at that moment, ``pause``
    is how long it waits for its next probe.
    """

    def __init__(self) -> None:
        self.state: State = "closed"
        self.cause: Cause = "keys_fail"
        self.failed = 0
        self.outcomes = 0
        self.pause = FIRST_PAUSE
        self.good_probes = 0
        self._window: dict[object, _Tally] = {}  # those with the latest outcomes are last
        self._held = 0  # outcomes in it
        self._in_a_row: set[bytes] = set()  # failed since the last success, however long ago, in batches without any
        self._unreachable_since: float | None = None
        self._unreached: set[bytes] = set()  # keys of calls since then
        self._closed_at: float | None = None
        self._probe_at = 0.0
        self._probe_is_out = False

    # --- closed ------------------------------------------------------------------------------------------

    def handled(self, batch: object, keys: int, now: float) -> None:
        """So many keys of a batch got through."""
        if self.state == "closed":
            if self._in_a_row:
                self._in_a_row.clear()
            self._tally(batch, keys, now).handled += keys

    def fails(self, batch: object, key: bytes, keys: int, now: float) -> bool:
        """A piece of so many keys begins to fail, or is given up; ``key`` stands for them, because of a piece that is
        not cut nobody knows more than that one of its keys fails. True when that opens the breaker."""
        if self.state != "closed":
            return False
        tally = self._tally(batch, keys, now)
        if not tally.handled:
            self._in_a_row.add(key)
        tally.failed += keys
        tally.keys.add(key)
        while self._window[oldest := next(iter(self._window))].at < now - WINDOW:
            dropped = self._window.pop(oldest)
            self._held -= dropped.handled + dropped.failed
        if not self._most_fail():
            return False
        self._open("keys_fail", now)
        return True

    def not_invoked(self, keys: set[bytes], now: float) -> bool:
        """A call with these keys did not reach user code. True when that opens the breaker."""
        if self.state != "closed":
            return False
        if self._unreachable_since is None:
            self._unreachable_since = now
        if len(self._unreached) < KEYS:
            self._unreached |= keys
        if now - self._unreachable_since < (UNREACHABLE_MANY if len(self._unreached) >= KEYS else UNREACHABLE):
            return False
        self._open("not_invoked", now)
        return True

    def invoked(self) -> None:
        """A call reached user code."""
        if self._unreachable_since is not None:
            self._unreachable_since = None
            self._unreached.clear()

    def _tally(self, batch: object, keys: int, now: float) -> _Tally:
        """Where to count ``keys`` more outcomes of a batch; batches that are not needed any more are forgotten."""
        tally = self._window.pop(batch, None) or _Tally(now)
        tally.at = now
        self._window[batch] = tally
        self._held += keys
        while self._held >= OUTCOMES:
            oldest = self._window[first := next(iter(self._window))]
            left = self._held - oldest.handled - oldest.failed
            if left < OUTCOMES or oldest is tally:
                break
            del self._window[first]
            self._held = left
        return tally

    def _most_fail(self) -> bool:
        """Of the latest outcomes. Where little happens, these are few: then all that failed since the last success."""
        tallies = self._window.values()
        failed = sum(tally.failed for tally in tallies)
        if failed == self._held and len(self._in_a_row) >= KEYS:
            return True
        return 2 * failed > self._held and len(set().union(*(tally.keys for tally in tallies))) >= KEYS

    def _open(self, cause: Cause, now: float) -> None:
        self.state, self.cause = "open", cause
        if cause == "keys_fail":
            self.failed, self.outcomes = sum(tally.failed for tally in self._window.values()), self._held
        else:
            self.failed = self.outcomes = len(self._unreached)
        # Closed by mistake a moment ago, it would begin anew with short pauses, and leak as many records each time.
        relapse = self._closed_at is not None and now - self._closed_at < MOST_PAUSE
        self._wait(min(MOST_PAUSE, self.pause * 2) if relapse else FIRST_PAUSE, now)
        self._forget()

    def _forget(self) -> None:
        self._window.clear()
        self._in_a_row.clear()
        self._held = 0
        self.invoked()

    # --- open --------------------------------------------------------------------------------------------

    def until_probe(self, now: float) -> float:
        """Seconds until the next probe may start; 0 when it may, or when it is closed."""
        return 0.0 if self.state == "closed" else max(0.0, self._probe_at - now)

    def may_probe(self, now: float) -> bool:
        """Whether a probe may start: one at a time."""
        return self.state != "closed" and not self._probe_is_out and now >= self._probe_at

    def begin_probe(self) -> None:
        self.state = "probing"
        self._probe_is_out = True

    def probed(self, *, good: bool | None, now: float, is_poison: bool = False) -> None:
        """The probe has ended; ``good`` is None when nothing was called. After a good one the next may follow at once,
        after a bad one twice as long a pause as before, or the first pause again when the one before was good: then the
        handler most likely works, and this was a poison record. ``is_poison``: that is known. Then it says of the
        handler what a good one says, but the next waits: otherwise the last keys of a shard that has ended, when they
        are poison, would keep it open for hours."""
        self._probe_is_out = False
        if good or (good is False and is_poison):
            self.good_probes += 1
            if self.good_probes == GOOD_PROBES:
                self.close(now)
            elif not good:
                self.state = "open"
                self._probe_at = now + FIRST_PAUSE  # the pause is that of a relapse: it was a mistake, then
        elif good is not None:
            self.state = "open"
            self._wait(FIRST_PAUSE if self.good_probes else min(MOST_PAUSE, self.pause * 2), now)

    def close(self, now: float) -> None:
        """Everything goes on."""
        self.state = "closed"
        self._closed_at = now
        self._probe_is_out = False
        self.good_probes = 0

    def _wait(self, pause: float, now: float) -> None:
        self.good_probes = 0
        self.pause = pause
        self._probe_at = now + pause
