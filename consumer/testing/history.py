"""What happened in a simulation: a hash over everything, the records and what became of them, and what was violated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Item:
    """One record of the stream and what became of it. ``previous`` is the record before it of the same key."""

    number: int
    key: str
    version: int
    shard_id: str
    created: float
    previous: Item | None = None
    put_at: float = 0.0  # virtual time
    digest: str = ""  # names its ordering key in frontiers
    settled_at: float | None = None
    settles: int = 0
    settled_in: tuple[str, int] = ("", 0)  # the incarnation and the epoch that settled it last
    failures: int = 0
    dead_lettered: int = 0
    effects: int = 0  # in ``VersionedSink``
    redriven: int = 0  # times that it was handled by a redrive
    lost: bool = False  # trimmed before it was settled
    before_start: bool = False
    superseded_by: Item | None = None  # a newer change of its item, or the same one, that was put before it

    @property
    def handled(self) -> bool:
        """It had its effect, through a worker or a redrive."""
        return self.settles > 0 or self.redriven > 0

    @property
    def open(self) -> bool:
        """Still to be settled: nothing may pass it."""
        skipped = self.before_start or self.superseded_by is not None
        return self.settled_at is None and not self.lost and not skipped


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise. ``checker`` is a name such as ``G2 order``."""

    time: float
    checker: str
    text: str

    def __str__(self) -> str:
        return f"{self.time:10.3f}  {self.checker}: {self.text}"


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A record that was handled with success once more."""

    time: float
    item: Item
    worker: str
    epoch: int


@dataclass
class History:
    """Events go into ``digest`` as they happen; with ``keep`` they are also printed by ``on_event``."""

    now: Callable[[], float]
    on_event: Callable[[str], None] | None = None
    violations: list[Violation] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    items: dict[str, Item] = field(default_factory=dict)
    events: int = 0
    sealed: bool = False  # the run is over: what is torn down afterwards is no part of it

    def __post_init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def note(self, kind: str, *what: object) -> None:
        """One more event."""
        if self.sealed:
            return
        line = f"{self.now():.9f} {kind} " + " ".join(map(str, what))
        self._hash.update(line.encode())
        self.events += 1
        if self.on_event is not None:
            self.on_event(line)

    @property
    def digest(self) -> str:
        """The same for two runs exactly when the same things happened at the same virtual times."""
        return self._hash.hexdigest()

    def violated(self, checker: str, text: str) -> None:
        """Record a broken promise (the first thousand of them)."""
        if len(self.violations) < 1000 and not self.sealed:
            violation = Violation(self.now(), checker, text)
            self.violations.append(violation)
            self.note("VIOLATION", checker, text)
