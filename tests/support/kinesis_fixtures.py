"""Fixtures for tests that need a local Kinesis server: one process of it in a session, and streams for each test.

Where the servers are not installed their tests are skipped, as nothing else needs Node.js; a server that is installed
and does not start fails them. With pytest-xdist all tests of a server run in one worker, so that it is started once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.support.kinesis_servers import KINESALITE, KINESIS_LOCAL, KinesisServer, NotInstalled, Program
from tests.support.kinesis_streams import StreamMaker, streams_on

_GROUPS = {"kinesis_local": KINESIS_LOCAL.name, "kinesalite": KINESALITE.name}  # by the fixture that tests use


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in sorted(_GROUPS.keys() & set(getattr(item, "fixturenames", ()))):
            item.add_marker(pytest.mark.xdist_group(_GROUPS[fixture]))


def _running(program: Program) -> Iterator[KinesisServer]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(KinesisServer(program))
        except NotInstalled as error:
            pytest.skip(str(error))
        yield server


@pytest.fixture(scope="session")
def kinesis_local() -> Iterator[KinesisServer]:
    """The whole shard graph as AWS shows it: ChildShards, shard filters, UpdateShardCount, records of 10 MiB."""
    yield from _running(KINESIS_LOCAL)


@pytest.fixture(scope="session")
def kinesalite() -> Iterator[KinesisServer]:
    """Fast, and refuses positions as AWS does."""
    yield from _running(KINESALITE)


@pytest.fixture
async def kinesis_local_streams(kinesis_local: KinesisServer, aws_environment: None) -> AsyncIterator[StreamMaker]:
    """``await kinesis_local_streams(shards)`` makes a stream on kinesis-local."""
    async with streams_on(kinesis_local) as make:
        yield make


@pytest.fixture
async def kinesalite_streams(kinesalite: KinesisServer, aws_environment: None) -> AsyncIterator[StreamMaker]:
    """``await kinesalite_streams(shards)`` makes a stream on kinesalite."""
    async with streams_on(kinesalite) as make:
        yield make


@pytest.fixture(
    params=[pytest.param(name, id=group, marks=pytest.mark.xdist_group(group)) for name, group in _GROUPS.items()]
)
async def kinesis_streams(request: pytest.FixtureRequest, aws_environment: None) -> AsyncIterator[StreamMaker]:
    """The same, once on each of the two: for what must hold on all of them."""
    async with streams_on(request.getfixturevalue(request.param)) as make:
        yield make
