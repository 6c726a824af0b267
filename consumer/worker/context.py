"""What every part of the worker is given: the ports, the settings and the shared process-wide limits."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumer.domain.batching import BOUNDS, KeyBounds
from consumer.domain.filters.filters import Filters
from consumer.domain.handler_successes import HandlerSuccesses
from consumer.domain.item_versions import ItemVersions
from consumer.domain.lease import SessionValidity
from consumer.domain.redaction import Redaction
from consumer.domain.settlement import RetryPolicy
from consumer.operate.metrics import Metrics
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.handler import Handler
from consumer.ports.leases import LeaseTable
from consumer.ports.source import StreamDescription, StreamSource
from consumer.ports.time import Randomness, ServiceClock
from consumer.settings.model import Settings
from consumer.worker.handler_places import HandlerPlaces
from consumer.worker.memory_budget import ByteBudget
from consumer.worker.parked_keys import ParkedKeys
from consumer.worker.running_config import RunningConfig


@dataclass(frozen=True, slots=True)
class Ports:
    """The outside world, as adapters."""

    source: StreamSource
    store: LeaseTable
    handler: Handler
    dead_letters: DeadLetters | None
    clock: ServiceClock
    random: Randomness


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """One incarnation of a worker on one stream. What comes from ``config`` may be different at the next look."""

    config: RunningConfig
    ports: Ports
    metrics: Metrics
    stream: StreamDescription
    incarnation: str
    validity: SessionValidity
    budget: ByteBudget
    places: HandlerPlaces
    start_at: float | None
    parked: ParkedKeys
    versions: ItemVersions | None = None
    bounds: KeyBounds = BOUNDS
    successes: HandlerSuccesses = field(default_factory=HandlerSuccesses)

    @property
    def settings(self) -> Settings:
        return self.config.now.settings

    @property
    def filters(self) -> Filters:
        return self.config.now.filters

    @property
    def redaction(self) -> Redaction | None:
        return self.config.now.redaction

    @property
    def retry_policy(self) -> RetryPolicy:
        """For a batch that begins now, which keeps it."""
        return self.config.now.retry_policy(self.ports.source.retention)
