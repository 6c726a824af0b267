"""The whole configuration as one immutable value.

`load.load_settings` is the way in for files; `Settings.model_validate({...})` takes the same mapping from
code, with the same rules, and raises pydantic's `ValidationError`.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from consumer.domain.filters.filters import Filters as CompiledFilters
from consumer.domain.filters.filters import compile_filters
from consumer.settings.cross_field import violations
from consumer.settings.fields import Text
from consumer.settings.sections import (
    Aws,
    Batch,
    Checkpoint,
    FilterOptions,
    Filters,
    Handler,
    Http,
    Idempotency,
    Leases,
    Limits,
    Logging,
    OnFailure,
    Retry,
    Section,
    Shutdown,
    Source,
)

ApplicationName = Annotated[
    str,
    Text(
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
    filters: Filters = Field(
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

    def compiled_filters(self) -> CompiledFilters:
        """``filters`` ready to run, with their options. PatternError, which a loaded configuration never gives."""
        return compile_filters(self.filters, numeric_on_numbers=self.filter_options.numeric_on_n)

    @model_validator(mode="after")
    def _rules_between_keys(self, info: ValidationInfo) -> Self:
        """The loader asks to skip this (context `collect`): it runs the rules itself, to place each one."""
        if not (info.context or {}).get("collect"):
            broken = violations(self)
            if broken:
                text = "; ".join(f"{found.path} {found.message}" for found in broken)
                raise PydanticCustomError("rules", "{text}", {"text": text})
        return self
