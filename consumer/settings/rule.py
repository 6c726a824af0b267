"""What a rule over several keys is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consumer.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the key to point at (dotted), what is wrong, what to do."""

    path: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` gives everything that breaks the rule; it only looks at the keys `reads` (dotted)."""

    reads: tuple[str, ...]
    check: Callable[[Settings], Iterable[Violation]]
