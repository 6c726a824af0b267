"""Where an application starts, and that what is written down is about the stream that is read."""

from __future__ import annotations

import random

import pytest

from consumer.domain.errors import MisconfiguredResource
from consumer.ports.leases import Registration
from consumer.testing.memory_leases import MemoryLeaseStore
from consumer.testing.memory_source import MemoryStreamSource
from consumer.testing.memory_stream import MemoryStream
from consumer.testing.memory_table import MemoryTable
from consumer.testing.virtual_loop import VirtualLoop
from consumer.worker.fleet.registration import belongs_to, register_start

OTHER = "arn:aws:dynamodb:eu-west-1:222222222222:table/orders/stream/2026-01-01T00:00:00.000"


def test_a_registration_of_another_stream_with_the_same_label_is_refused() -> None:
    """A label is only a time: streams of another account or region may have the same."""
    loop = VirtualLoop(random.Random(0))
    stream = MemoryStream(loop.world)
    source, table = MemoryStreamSource(stream), MemoryTable()

    async def body() -> None:
        registry = MemoryLeaseStore(table, "app", loop.world.wall)
        described = await source.describe()
        assert described.source_id == "arn:aws:dynamodb:us-east-1:000000000000:table/orders"
        await registry.register(stream.label, Registration(OTHER, None))
        with pytest.raises(MisconfiguredResource, match=rf"belong to the stream {OTHER}, not to {stream.arn}:"):
            await register_start(source, registry, described, "trim_horizon", "host/1", loop.world)
        table.registrations.clear()
        start = await register_start(source, registry, described, "trim_horizon", "host/1", loop.world)
        assert belongs_to(described, start) == start == Registration(stream.arn, None)

    try:
        loop.run_until(body())
    finally:
        loop.close()
