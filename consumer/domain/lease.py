"""Leases and sessions: which worker may read which shard, and until when it may rely on that.

One session row per worker incarnation carries the only heartbeat. The rules (docs/architecture.md has the proof idea):

* the owner relies on its leases until *time of sending* its last successful bump + its ``duration``;
* an observer that saw a counter unchanged for 1.1 x *that* duration on its own clock, stamped after its read, may fence
  the session, and only then take its leases;
* every write to a lease row is conditional on the owner's incarnation and on the epoch, and a write of one owner and
  epoch that arrives late, after a newer one, is refused by its revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .frontier import FrontierSnapshot
from .replay_start import ReplayStart

TAKE_MARGIN = 1.1  # observers wait this much longer than owners rely on their leases: clock rates may differ by 10 %

MOST_FAILING = 5  # shards that a session names: its row is read by all
OWNERS_PER_SECOND = 2**4  # more than can follow each other: each has written to the row
EPOCHS_PER_SECOND = 2**20

_DURATION = re.compile(r"/([0-9]+(?:\.[0-9]+)?)s")

LeaseState = Literal["waiting", "open", "deferred", "draining", "done", "halted"]


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One shard's lease as stored. ``epoch`` grows by one with every change of owner; 0 was never owned. It grows by
    far more when the row was deleted and is made again from memory (``epoch_beyond``).

    ``deferred``: read to its end, and settled but for its deferred keys: children may start, and hold these back.
    ``draining``: read and settled to its end, children not visible yet. ``done``: children are registered.
    ``halted``: records were trimmed before they were read and ``on_gap`` is halt; ``note`` says what was found.
    ``window_open``: a tumbling window is stored beside the row; written with it, so that only its finder reads it.
    ``corrupt`` is set by the store when the stored frontier cannot be read: the shard is quarantined.
    ``replay`` is where a replay has set the shard back to, instead of where the application began.
    ``revision`` counts the writes of one owner and epoch; the store sets it, callers leave it alone.
    """

    shard_id: str
    parents: tuple[str, ...] = ()
    owner: str | None = None
    epoch: int = 0
    state: LeaseState = "waiting"
    frontier: FrontierSnapshot = FrontierSnapshot()
    starting_sequence_number: str | None = None
    window_open: bool = False
    note: str = ""
    corrupt: str = ""
    replay: ReplayStart | None = None
    updated_at: float = 0.0
    revision: int = 0

    @property
    def settled(self) -> bool:
        """Read and settled to its end."""
        return self.state in ("draining", "done")

    @property
    def lets_children_start(self) -> bool:
        """Children may start, but for the keys that are deferred here; which they are a corrupt row does not say."""
        return self.settled or (self.state == "deferred" and not self.corrupt)

    @property
    def finished(self) -> bool:
        """Nothing left to do for an owner; does not count for the fair share."""
        return self.state == "done"


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One worker incarnation. ``incarnation`` is ``host/pid/uuid/duration`` and never used again.

    ``handoffs`` grows whenever this worker released or handed over leases: peers that see it change look at the
    leases at once. ``leaving`` workers are shutting down and get no new leases. ``capacity`` 0 means no limit.
    ``stream_id`` is the stream the worker reads: it shares the leases of that stream only (empty: of any).
    ``readable`` is False for one that a newer version of this program wrote: it is nobody's to judge.
    ``version`` is the program's, for people; empty for one that did not say.
    ``failing``, for people, too: some of the worker's shards in which a key fails again and again.
    """

    incarnation: str
    counter: int = 0
    fenced: bool = False
    handoffs: int = 0
    leaving: bool = False
    capacity: int = 0
    started_at: float = 0.0
    stream_id: str = ""
    readable: bool = True
    version: str = ""
    failing: tuple[str, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds for which this incarnation relies on its leases after a renewal. ValueError when its name does not
        say so."""
        duration = duration_of(self.incarnation)
        if duration is None:
            raise ValueError(f"the incarnation {self.incarnation!r} names no duration")
        return duration


def name_of(process: str, token: str, duration: float) -> str:
    """The name of a new incarnation. It ends with its ``leases.duration`` (seconds): so the session row and every lease
    row say how long their owner may rely on them, also when only one of the two is left, and an incarnation with
    another duration is another incarnation."""
    seconds = f"{duration:.6f}".rstrip("0").rstrip(".")
    return f"{process}/{token}/{seconds}s"


def duration_of(incarnation: str) -> float | None:
    """Seconds; None for what no worker of this schema is called (a name that was written by hand)."""
    found = _DURATION.fullmatch(incarnation, max(0, incarnation.rfind("/")))
    return float(found[1]) if found else None


class SessionValidity:
    """Until when this worker may start handler calls. One writer (the session renewal), many readers; no lock needed.

    A float attribute is read and written atomically, also across threads.
    """

    __slots__ = ("fenced", "valid_until")

    def __init__(self) -> None:
        self.valid_until = float("-inf")
        self.fenced = False

    def renewed(self, sent_at: float, duration: float) -> None:
        """A bump that was sent at ``sent_at`` succeeded. Late answers never shorten the validity."""
        self.valid_until = max(self.valid_until, sent_at + duration)

    def lost(self) -> None:
        self.fenced = True
        self.valid_until = float("-inf")

    def holds(self, now: float) -> bool:
        return not self.fenced and now < self.valid_until

    def left(self, now: float) -> float:
        """Seconds for which it still holds; 0 or less when it does not."""
        return self.valid_until - now


def epoch_beyond(seen: int, service_time: float, salt: int) -> int:
    """An epoch above all that were ever handed out, for a row that comes from memory, or whose table came back from a
    backup: there may have been later owners than anybody remembers.

    ``service_time`` (Unix seconds, by the clock of the lease table's service, whoever asks) grows faster than any
    number of owners that follow each other; ``salt`` (0 to 2^16 - 1, random) tells apart what is asked for within one
    second, with the owners that follow. Below 2^53, so that every language reads it exactly.
    """
    return max(seen + 1, int(service_time) * EPOCHS_PER_SECOND + salt * OWNERS_PER_SECOND)


class Observer:
    """What this worker has seen of the others' counters, on its own monotonic clock. Each is waited for as long as *it*
    relies on its leases; ``default`` (seconds) is for owners whose name does not say so."""

    def __init__(self, default: float) -> None:
        self._default = default
        self._seen: dict[str, tuple[int | None, float]] = {}

    def observe(self, sessions: Iterable[SessionRow], owners: Iterable[str], now: float) -> None:
        """Record one reading, stamped *after* the read. ``owners`` of leases without a session row are watched too:
        such an incarnation can never renew, but a bump that it sent earlier may keep it valid."""
        current: dict[str, int | None] = dict.fromkeys(owners)
        current.update({session.incarnation: session.counter for session in sessions})
        self._seen = {
            who: self._seen[who] if who in self._seen and self._seen[who][0] == counter else (counter, now)
            for who, counter in current.items()
        }

    def expired(self, now: float) -> list[str]:
        """Incarnations that have not moved for long enough that none of them can still be valid."""
        return [who for who, (_, since) in self._seen.items() if now - since >= TAKE_MARGIN * self.duration(who)]

    def duration(self, incarnation: str) -> float:
        """Seconds for which an incarnation relies on its leases after a renewal."""
        return duration_of(incarnation) or self._default

    def unchanged_for(self, incarnation: str, now: float) -> float:
        """Seconds since this worker first saw the counter as it is; 0 for an incarnation that is not watched."""
        _, since = self._seen.get(incarnation, (None, now))
        return now - since
