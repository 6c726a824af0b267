"""One thing that is wrong, and the words in which such things are said. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from consumer.operate.status import ShardStatus, Status

Severity = Literal["critical", "warning", "info"]
CONFIG_FILE: Final = "consumer.yaml"  # in the place of the one of the worker
CONFIG: Final = f"--config {CONFIG_FILE}"

SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. ``code`` is stable, for scripts. ``text`` says what, ``help`` what to do about it,
    ``command`` is what to run (empty: nothing). ``shards`` are some of those concerned."""

    severity: Severity
    code: str
    text: str
    help: str
    command: str = ""
    shards: tuple[str, ...] = ()


def ids_of(shards: Iterable[ShardStatus]) -> tuple[str, ...]:
    return tuple(shard.shard_id for shard in shards)


def shards_in_words(ids: Sequence[str]) -> str:
    return counted(len(ids), "shard")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def of_kinds(kinds: Sequence[str]) -> str:
    return f" ({', '.join(kinds[:3])})" if kinds else ""


def age(status: Status, since: float) -> float:
    """Seconds from ``since`` (Unix seconds by the clock of AWS, 0 when unknown) to the time of the report."""
    return max(0.0, status.updated_at - since) if since else 0.0


def time_in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172800 else f"{seconds / 86400:.0f} days"
