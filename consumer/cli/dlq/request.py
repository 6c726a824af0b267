"""What was asked of a redrive on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.domain.letter_selection import Selection

if TYPE_CHECKING:  # imported on use: --help must not wait for it
    from consumer.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Request:
    """``rate`` in records a second; ``check``: items are read from the source first, unless ``force``."""

    settings: Settings
    place: str
    which: Selection
    limit: int | None
    rate: float
    concurrency: int
    dry_run: bool
    check: bool
    force: bool
    accept_loss: bool
    as_json: bool
