"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old`` must occur exactly once in ``file``. ``caught_by``: the checkers of which one has to speak up. ``also``:
    other lines of the file, and what becomes of them, where a rule is kept in two places and each of them would do."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    family: str = "protocol"
    quick: bool = False
    also: tuple[tuple[str, str], ...] = ()

    @property
    def changes(self) -> tuple[tuple[str, str], ...]:
        return ((self.old, self.new), *self.also)
