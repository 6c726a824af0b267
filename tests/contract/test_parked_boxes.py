"""Letters of parked keys as a redrive finds them: in a bucket by their names, in a queue among all that is there."""

import asyncio
import time

import pytest

from consumer.aws.errors import ApiCaller
from consumer.aws.letter_payloads import LetterPayloads, OverflowPayloads, TablePayloads
from consumer.aws.letter_queue import LetterQueue
from consumer.aws.overflow import WithOverflow
from consumer.aws.parked_objects import ParkedObjects
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.dead_letter import Letter, Parked
from consumer.domain.letter_selection import Selection
from consumer.domain.parking import ParkedShard
from consumer.redrive.gathering import Gathering, Spool
from consumer.redrive.held_letters import HeldLetters
from consumer.redrive.parked_in_queue import ParkedInQueue
from tests.support.destination_worlds import BIG, CONTEXT, LIMIT, NOW, SHARD, bucket_of, give_up, objects

PARK = "7e0d2c9e-park"


def letter(ordinal, park_id=PARK, image=None):
    number = str(2900002759746085485437 + ordinal)
    return Letter(CONTEXT, give_up(image, number), NOW, parked=Parked(park_id, ordinal))


def row(park_id=PARK, **changes):
    digest = letter(1).attributes["key_digest"]
    return ParkedShard(
        **{"digest": digest, "label": CONTEXT.label, "shard_id": SHARD, "park_id": park_id, "first": "1", **changes}
    )


async def send(destination, *letters):
    for one in letters:
        await destination.send(one.document(), attributes=one.attributes)


def numbers(found):
    return [int(record.number) - 2900002759746085485437 for one in found for record in one.records]


class World:
    async def make(self, session, queue):
        self.session = session
        s3 = await session.client("s3")
        self.overflow_bucket = await bucket_of(session)
        overflow = f"s3://{self.overflow_bucket}/big"
        self.overflow = S3Folder(s3, ApiCaller(), overflow, clock_wall=lambda: NOW)
        table = TablePayloads(None, ApiCaller(), table="t", application=CONTEXT.application, clock_wall=time.time)
        self.payloads = LetterPayloads(OverflowPayloads(s3, ApiCaller(), [overflow]), table)
        return self


class InQueue(World):
    copies = 2

    async def make(self, session, queue):
        await super().make(session, queue)
        self.queue = await queue(MaximumMessageSize=str(LIMIT))
        self.client = await session.client("sqs")
        self.destination = WithOverflow(SqsDeadLetters(self.client, ApiCaller(), self.queue.arn), self.overflow)
        return self

    async def box(self, *, gathered=True):
        self.store = LetterQueue(self.client, ApiCaller(), self.queue.arn, clock_wall=time.time)
        await self.store.prepare()
        held = HeldLetters(self.store)
        gathering = Gathering(self.store, self.payloads, held, Spool(), CONTEXT.application, None)
        found = await gathering.gather(Selection(), parked=False) if gathered else None
        return ParkedInQueue(gathering, held, self.payloads, found.parked if found else ())

    async def left(self):
        waiting = await self.store.waiting()
        return waiting.visible + waiting.hidden


class InBucket(World):
    copies = 1

    async def make(self, session, queue):
        await super().make(session, queue)
        self.bucket = await bucket_of(session)
        self.client = await session.client("s3")
        self.url = f"s3://{self.bucket}/dead"
        self.destination = S3DeadLetters(S3Folder(self.client, ApiCaller(), self.url, clock_wall=lambda: NOW))
        return self

    async def box(self, *, gathered=True):
        return ParkedObjects(self.client, ApiCaller(), self.url, CONTEXT.application, self.payloads)

    async def left(self):
        return len(await objects(self.session, self.bucket))


@pytest.fixture(params=[InQueue, InBucket], ids=["sqs", "s3"])
async def world(request, local_clients, queue):
    return await request.param().make(local_clients, queue)


async def test_a_letter_is_found_by_its_place_whatever_lies_beside_it(world):
    await send(world.destination, *map(letter, (3, 1, 2)), letter(1, "another-park"))
    box = await world.box()
    assert [numbers(await box.find(row(), ordinal)) for ordinal in (1, 2, 3)] == [[1], [2], [3]]
    assert numbers(await box.find(row("another-park"), 1)) == [1]


async def test_a_letter_of_another_shard_or_stream_is_another_one(world):
    await send(world.destination, letter(1))
    box = await world.box()
    assert await box.find(row(shard_id="shardId-2"), 1) == []
    assert await box.find(row(label="2027-01-01T00:00:00.000"), 1) == []


async def test_what_comes_later_is_found_when_it_is_asked_for(world):
    await send(world.destination, letter(1))
    box = await world.box()
    assert await box.find(row(), 2) == []
    await send(world.destination, letter(2), letter(3))
    assert numbers(await box.find(row(), 2)) == [2]
    assert numbers(await box.find(row(), 3)) == [3]


async def test_all_who_wait_at_once_get_theirs(world):
    await send(world.destination, *map(letter, range(1, 31)))
    box = await world.box(gathered=False)
    async with asyncio.TaskGroup() as tasks:
        finding = [tasks.create_task(box.find(row(), ordinal)) for ordinal in range(1, 31)]
    assert [numbers(one.result()) for one in finding] == [[ordinal] for ordinal in range(1, 31)]


async def test_every_copy_of_a_letter_goes(world):
    await send(world.destination, letter(1), letter(1), letter(2))
    box = await world.box()
    found = await box.find(row(), 1)
    assert len(found) == world.copies
    for one in found:
        await box.remove(one)
    assert await box.find(row(), 1) == []
    assert await world.left() == 1


async def test_a_payload_that_lies_apart_is_fetched_and_goes_with_its_letter(local_clients, queue):
    world = await InQueue().make(local_clients, queue)
    await send(world.destination, letter(1, image=BIG))
    box = await world.box()
    (found,) = await box.find(row(), 1)
    assert numbers([found]) == [1]
    assert len(await objects(local_clients, world.overflow_bucket)) == 1
    await box.remove(found)
    assert await objects(local_clients, world.overflow_bucket) == {}


async def test_a_letter_whose_payload_is_gone_says_so(local_clients, queue):
    world = await InQueue().make(local_clients, queue)
    await send(world.destination, letter(1, image=BIG))
    (key,) = await objects(local_clients, world.overflow_bucket)
    await (await local_clients.client("s3")).delete_object(Bucket=world.overflow_bucket, Key=key)
    (found,) = await (await world.box()).find(row(), 1)
    assert found.records == ()
    assert key in found.problem


async def test_an_object_that_is_no_letter_says_so(local_clients, queue):
    world = await InBucket().make(local_clients, queue)
    await send(world.destination, letter(1))
    (key,) = await objects(local_clients, world.bucket)
    await world.client.put_object(Bucket=world.bucket, Key=key, Body=b"{}")
    (found,) = await (await world.box()).find(row(), 1)
    assert found.records == ()
    assert "is no dead letter" in found.problem


async def test_letters_of_keys_that_are_not_parked_any_more_are_named(local_clients, queue):
    world = await InQueue().make(local_clients, queue)
    await send(world.destination, letter(1), letter(1, "freed-long-ago"))
    box = await world.box()
    assert [one.letter.parked.park_id for one in box.others([PARK])] == ["freed-long-ago"]
