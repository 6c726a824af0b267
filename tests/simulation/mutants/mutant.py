"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``old`` must occur exactly once in ``file``. ``caught_by``: the checkers of which one has to speak up."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    family: str = "protocol"
    quick: bool = False
