"""The configuration as it is now: what may change while the worker runs is read from here, and kept nowhere else.

It is replaced whole between two steps of the main loop, so no part of the worker ever sees half of a change. Whoever
works with it reads it once for a page, a piece of a batch or a pause: never for a record, and never at construction for
the life of a shard. Which keys may change is said in ``settings/reload.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from consumer.domain.filters.filters import Filters
from consumer.domain.redaction import Redaction
from consumer.settings.model import Settings
from consumer.settings.printed import changed_settings


class Edition:
    """One configuration, with what is made of it once: it is never changed, only followed by another one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.filters: Filters = settings.compiled_filters()
        self.redaction: Redaction | None = settings.on_failure.redaction

    @cached_property
    def printed(self) -> Mapping[str, str]:
        """What differs from the defaults, for people."""
        return changed_settings(self.settings)


class RunningConfig:
    """``now`` is the edition that counts. One for all incarnations of a process."""

    __slots__ = ("now",)

    def __init__(self, settings: Settings) -> None:
        self.now = Edition(settings)

    def replace(self, settings: Settings) -> None:
        """These settings count from now on."""
        self.now = Edition(settings)
