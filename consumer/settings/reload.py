"""What of the configuration may change while the daemon runs, and what has changed between two of them.

A key belongs to ``RELOADABLE`` when everything that works with it reads it anew (``worker/running_config.py``). All
others are built into what the start makes: clients, processes, rows, the books of a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from consumer.domain.urls import secret_of
from consumer.settings.model import Settings
from consumer.settings.section import Section

RELOADABLE: Final[Mapping[str, str]] = {
    "logging.level": "at once",
    "filters": "with the next page of each shard",
    "filter_options.numeric_on_n": "with the next page of each shard",
    "retry.max_retry_attempts": "with the next batch",
    "retry.max_record_age": "with the next batch",
    "retry.bisect_on_error": "with the next batch",
    "retry.backoff.initial": "with the next batch",
    "retry.backoff.max": "with the next batch",
    "on_failure.redact": "with the next call and the next dead letter",
    "limits.buffer": "at once; what is held above a smaller one is not taken back",
    "limits.max_shards": "with the next plan; shards held above a smaller one are kept",
    "source.poll.max_records": "with the next page of each shard",
    "source.poll.target_latency": "with the next pause of each shard",
    "source.poll.idle_backoff_max": "with the next pause of each shard",
    "checkpoint.interval": "with the next pause of each shard",
}
"""Keys that may change, and from when on the new value counts."""


class Change(NamedTuple):
    """One key with another value. ``old`` and ``new`` as a file has them, without the secrets of URLs."""

    key: str
    old: Any
    new: Any

    @property
    def needs_restart(self) -> bool:
        return self.key not in RELOADABLE


def changes(old: Settings, new: Settings) -> list[Change]:
    """The keys whose values differ, in the order of the documentation. Ways to write one value do not."""
    found: list[Change] = []
    written_old, written_new = old.model_dump(mode="json"), new.model_dump(mode="json")
    for (path, before), (_, after) in zip(values(old), values(new), strict=True):
        if _compared(before) != _compared(after):
            found.append(Change(".".join(path), _at(written_old, path), _at(written_new, path)))
    return found


def values(section: Section, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key of the settings, as its path, with its value."""
    for name, value in section:
        if isinstance(value, Section):
            yield from values(value, (*above, name))
        else:
            yield (*above, name), value


def _compared(value: Any) -> Any:
    return secret_of(value) if isinstance(value, str) else value


def _at(written: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        written = written[name]
    return written
