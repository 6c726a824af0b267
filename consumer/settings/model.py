"""The whole configuration as one immutable value.

`load.load_settings` makes one of a file and `load.settings_from` of a mapping; both also apply the rules of `rules.py`.
The model itself judges each key alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consumer.domain.filters.filters import Filters, compile_filters
from consumer.settings.kinds import text_like
from consumer.settings.sections import (
    Aws,
    Batch,
    Checkpoint,
    FilterOptions,
    Handler,
    Http,
    Idempotency,
    Leases,
    Limits,
    Logging,
    OnFailure,
    Patterns,
    Retry,
    Section,
    Shutdown,
    Source,
)

ApplicationName = Annotated[
    str,
    text_like(
        r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}",
        "must be 1 to 128 of a-z A-Z 0-9 _ . - and start with a letter or digit",
    ),
]


class Settings(Section):
    """Configuration of stream-consumer. Durations are 250ms, 10s, 5m, 24h; sizes are 64KiB, 4MiB."""

    application: ApplicationName = Field(
        description="Names this consumer, 1 to 128 characters. Replicas with the same name share the work; it "
        "is the namespace of every lease row, so renaming starts afresh. Required."
    )
    aws: Aws = Field(default_factory=Aws, description="How to reach AWS.")
    source: Source = Field(description="The stream to consume. Required.")
    handler: Handler = Field(description="The code that handles records. Required.")
    batch: Batch = Field(default_factory=Batch, description="How records are grouped into invocations.")
    filters: Patterns = Field(
        default=(),
        description="EventBridge patterns over the whole event; a record that matches none is skipped. Default [].",
    )
    filter_options: FilterOptions = Field(
        default_factory=FilterOptions, description="Where filters go beyond Lambda's."
    )
    retry: Retry = Field(default_factory=Retry, description="What happens after a failed invocation.")
    on_failure: OnFailure = Field(default_factory=OnFailure, description="Where records go that are given up.")
    idempotency: Idempotency = Field(
        default_factory=Idempotency, description="How records already handled are recognised."
    )
    leases: Leases = Field(default_factory=Leases, description="Who owns which shard.")
    limits: Limits = Field(default_factory=Limits, description="Bounds for the whole process.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="How often progress is written.")
    shutdown: Shutdown = Field(default_factory=Shutdown, description="What happens at SIGTERM.")
    http: Http = Field(default_factory=Http, description="Health, metrics and status page.")
    logging: Logging = Field(default_factory=Logging, description="What is logged, and how.")

    def compiled_filters(self) -> Filters:
        """``filters`` ready to run, with their options. PatternError, which a loaded configuration never gives."""
        return compile_filters(self.filters, numeric_on_numbers=self.filter_options.numeric_on_n)
