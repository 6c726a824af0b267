"""Who may redrive the letters of one place: one session at a time.

S3 has no lock, and a queue shows a letter to the next reader when the first one takes too long. So a redrive claims the
place in the lease table, in the name of a session like a worker's, which it renews; it may delete and call the handler
only while that session holds. A claim is taken from another session only after that was fenced
(``domain/lease.py``), so one that was frozen and wakes up can do nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .lease import Observer, SessionRow


@dataclass(frozen=True, slots=True)
class Claim:
    """The row of one place. ``epoch`` grows with every session that takes it."""

    place: str
    owner: str
    epoch: int


Verdict = Literal["free", "held", "unknown", "silent"]


def verdict(claim: Claim | None, sessions: Iterable[SessionRow], observer: Observer, now: float) -> Verdict:
    """Whether the claim may be taken, as far as ``observer`` has seen the sessions until ``now``.

    ``free``: nobody has it, or a session that is fenced for good. ``held``: its session has moved. ``silent``: it has
    not, for so long that it may be fenced; only then the claim is free. ``unknown``: look again.
    """
    if claim is None:
        return "free"
    session = next((one for one in sessions if one.incarnation == claim.owner), None)
    if session is not None and session.fenced:
        return "free"
    if session is not None and not session.readable:
        return "held"
    return "silent" if claim.owner in observer.expired(now) else "unknown"
