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
from consumer.domain.settlement import RetryPolicy
from consumer.settings.model import Settings
from consumer.settings.printed import changed_settings


class Edition:
    """One configuration, with what is made of it once: it is never changed, only followed by another one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.filters: Filters = settings.compiled_filters()
        self.redaction: Redaction | None = settings.on_failure.redaction
        self._retry_policy: RetryPolicy | None = None

    def retry_policy(self, retention: float) -> RetryPolicy:
        """For batches that begin now; the stream keeps a record for ``retention`` seconds. One object for all of them,
        as long as that stays the same."""
        policy = self._retry_policy
        if policy is None or policy.retention != retention:
            retry = self.settings.retry
            policy = self._retry_policy = RetryPolicy(
                max_retries=retry.max_retry_attempts,
                max_age=None if retry.max_record_age < 0 else retry.max_record_age,
                bisect=retry.bisect_on_error,
                initial_backoff=retry.backoff.initial,
                max_backoff=retry.backoff.max,
                retention=retention,
            )
        return policy

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
