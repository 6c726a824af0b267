"""Claims on places with dead letters: the same rules in memory and on DynamoDB."""

import time

import pytest

from consumer.aws.errors import ApiCaller
from consumer.aws.redrive_claims import DynamoDBRedriveClaims
from consumer.domain.redrive_claim import Claim
from consumer.testing.memory_claims import MemoryRedriveClaims
from tests.conftest import MemoryLeases

PLACE = "s3://bucket/prefix"


@pytest.fixture
async def claims(leases):
    if isinstance(leases, MemoryLeases):
        return MemoryRedriveClaims()
    return DynamoDBRedriveClaims(
        leases.client, ApiCaller(), table=leases.table, application="app", clock_wall=time.time
    )


async def test_the_first_gets_it(claims):
    assert await claims.claim(PLACE) is None
    assert await claims.take_claim(PLACE, None, "a") == Claim(PLACE, "a", 1)
    assert await claims.claim(PLACE) == Claim(PLACE, "a", 1)
    assert await claims.take_claim(PLACE, None, "b") is None
    assert await claims.claim("s3://other") is None


async def test_it_is_taken_as_it_was_seen_or_not_at_all(claims):
    first = await claims.take_claim(PLACE, None, "a")
    second = await claims.take_claim(PLACE, first, "b")
    assert second == Claim(PLACE, "b", 2)
    assert await claims.take_claim(PLACE, first, "c") is None
    assert await claims.claim(PLACE) == second


async def test_only_its_holder_gives_it_back(claims):
    first = await claims.take_claim(PLACE, None, "a")
    second = await claims.take_claim(PLACE, first, "b")
    await claims.drop_claim(first)
    assert await claims.claim(PLACE) == second
    await claims.drop_claim(second)
    assert await claims.claim(PLACE) is None
    await claims.drop_claim(second)
