"""Dead letters out of a queue and out of a bucket, and the payloads that lie apart from them."""

import asyncio
import json
import math
import time

import pytest

from consumer.aws.errors import ApiCaller
from consumer.aws.lambda_format import LambdaMessages, LambdaObjects
from consumer.aws.letter_objects import LetterObjects
from consumer.aws.letter_payloads import LetterPayloads, OverflowPayloads, TablePayloads
from consumer.aws.letter_queue import LetterQueue
from consumer.aws.overflow import WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.aws.sqs import SqsDeadLetters
from consumer.domain.dead_letter import Letter, Parked, location_in_table, payload_parts
from consumer.domain.errors import MisconfiguredResource, PermissionDenied, ResourceMissing
from consumer.domain.lease import LeaseRow
from consumer.domain.letter_reading import read_letter
from consumer.domain.letter_selection import Selection
from consumer.redrive.gathering import Gathering, Spool
from consumer.redrive.held_letters import HeldLetters
from tests.conftest import unique
from tests.support.destination_worlds import BIG, CONTEXT, LIMIT, NOW, bucket_of, give_up, objects, refused

APPLICATION = CONTEXT.application


def letter(number, image=None, parked=None):
    return Letter(CONTEXT, give_up(image, str(2900002759746085485437 + number)), NOW, parked=parked)


async def send(destination, *letters):
    for one in letters:
        await destination.send(one.document(), attributes=one.attributes)


async def read(store):
    """Letters by their name, as they lie there."""
    return {one.name: one async for one in store.letters()}


def numbers(stored):
    found = [read_letter(one.body, one.attributes).first_number for one in stored]
    return sorted(int(number) - 2900002759746085485437 for number in found)


class Queue:
    async def make(self, session, queue):
        self.queue = await queue()
        self.client = await session.client("sqs")
        self.destination = SqsDeadLetters(self.client, ApiCaller(), self.queue.arn)
        return self

    async def store(self, **options):
        store = LetterQueue(self.client, ApiCaller(), self.queue.arn, clock_wall=time.time, **options)
        await store.prepare()
        return store


class Bucket:
    async def make(self, session, queue):
        self.bucket = await bucket_of(session)
        self.session = session
        self.client = await session.client("s3")
        self.url = f"s3://{self.bucket}/dead"
        self.folder = S3Folder(self.client, ApiCaller(), self.url, clock_wall=lambda: NOW)
        self.destination = S3DeadLetters(self.folder)
        return self

    async def store(self, **options):
        store = LetterObjects(self.client, ApiCaller(), self.url, APPLICATION, **options)
        await store.prepare()
        return store


class Unreliable:
    """An sqs client whose first batch of changes fails: the whole call, or the first of its entries."""

    def __init__(self, client, fault):
        self._client = client
        self._faults = [fault] if fault != "nothing" else []

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def change_message_visibility_batch(self, **request):
        fault = self._faults.pop() if self._faults else ""
        if fault == "a call":
            raise refused("InternalError", 500, "ChangeMessageVisibilityBatch")[0]
        if fault != "an entry":
            return await self._client.change_message_visibility_batch(**request)
        entries = request.pop("Entries")
        answer = await self._client.change_message_visibility_batch(Entries=entries[1:], **request)
        failed = {"Id": entries[0]["Id"], "Code": "InternalError", "SenderFault": False}
        return answer | {"Failed": [failed]}


class OnTheWay:
    """An sqs client: ``taken`` is set when messages were taken, and their answer is on its way until ``arrives``."""

    def __init__(self, client):
        self._client = client
        self.taken = asyncio.Event()
        self.arrives = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def receive_message(self, **request):
        answer = await self._client.receive_message(**request)
        self.taken.set()
        await self.arrives.wait()
        return answer


@pytest.fixture(params=[Queue, Bucket], ids=["sqs", "s3"])
async def world(request, local_clients, queue):
    return await request.param().make(local_clients, queue)


class TestAnyStore:
    async def test_what_was_sent_is_read_with_its_attributes(self, world):
        sent = letter(1, {"id": {"S": "a"}, "text": {"S": "\u0000 \u20ac \U0001f600"}})
        await send(world.destination, sent)
        ((_, found),) = (await read(await world.store())).items()
        assert found.body == sent.document()
        assert found.attributes == sent.attributes

    async def test_all_are_read_whatever_fits_into_one_answer(self, world):
        await send(world.destination, *map(letter, range(25)))
        assert numbers((await read(await world.store())).values()) == list(range(25))

    async def test_what_is_deleted_is_gone_and_the_rest_stays(self, world):
        await send(world.destination, *map(letter, range(3)))
        store = await world.store()
        found = list((await read(store)).values())
        gone = next(one for one in found if numbers([one]) == [1])
        await store.delete(gone)
        await store.delete(gone)
        await store.put_back([one for one in found if one is not gone])
        assert numbers((await read(store)).values()) == [0, 2]

    async def test_kept_letters_stay_ours(self, world):
        await send(world.destination, *map(letter, range(12)))
        store = await world.store()
        found = list((await read(store)).values())
        assert await store.keep(found) == []

    async def test_an_empty_place_has_none(self, world):
        assert await read(await world.store()) == {}


class TestQueue:
    @pytest.fixture
    async def world(self, local_clients, queue):
        return await Queue().make(local_clients, queue)

    async def test_what_is_taken_is_hidden_and_counted(self, world):
        await send(world.destination, *map(letter, range(3)))
        store = await world.store()
        waiting = await store.waiting()
        assert (waiting.visible, waiting.hidden) == (3, 0)
        await read(store)
        assert await read(await world.store()) == {}, "another reader sees nothing of it"
        waiting = await store.waiting()
        assert (waiting.visible, waiting.hidden) == (0, 3)

    async def test_reading_ends_although_letters_go_on_coming(self, world):
        """What was there at the beginning is read; with a letter behind every answer no answer would ever be empty."""
        await send(world.destination, *map(letter, range(3)))
        await asyncio.sleep(0.002)  # a message says in whole milliseconds when it was sent
        store, found = await world.store(), []
        async for one in store.letters():
            found.append(one)
            await send(world.destination, letter(100 + len(found)))
        assert numbers(found)[:3] == [0, 1, 2]
        assert len(found) < 100

    async def test_a_reader_that_stops_loses_nothing_of_the_answer_it_was_in(self, world):
        await send(world.destination, *map(letter, range(8)))
        store = await world.store()
        reading = store.letters()
        first = await anext(reading)
        await reading.aclose()
        rest = (await read(store)).values()
        assert numbers([first, *rest]) == list(range(8))

    async def test_what_a_reader_did_not_come_to_is_put_back_with_the_rest(self, world):
        await send(world.destination, *map(letter, range(8)))
        store = await world.store()
        reading = store.letters()
        first = await anext(reading)
        await reading.aclose()
        await store.put_back([first])
        assert numbers((await read(await world.store())).values()) == list(range(8))

    async def test_a_reader_that_is_stopped_while_it_asks_puts_back_what_it_gets(self, world):
        await send(world.destination, *map(letter, range(8)))
        store = await world.store()
        store._client = client = OnTheWay(world.client)
        held = HeldLetters(store)

        async def look():
            async with held.kept():
                await Gathering(store, None, held, Spool(), APPLICATION, None).gather(Selection())

        looking = asyncio.create_task(look())
        await client.taken.wait()
        looking.cancel()
        client.arrives.set()
        with pytest.raises(asyncio.CancelledError):
            await looking
        waiting = await store.waiting()
        assert (waiting.visible, waiting.hidden) == (8, 0)

    @pytest.mark.parametrize("fault", ["nothing", "a call", "an entry"])
    async def test_what_is_not_ours_comes_into_sight_again_with_the_rest(self, world, fault):
        """In a queue that others use, too: at the end of a command, not when its five minutes are over."""
        url = (await world.client.get_queue_url(QueueName=world.queue.arn.rpartition(":")[2]))["QueueUrl"]
        for number in range(24):
            await world.client.send_message(QueueUrl=url, MessageBody=f"{number} of somebody else")
        await send(world.destination, letter(1))
        store = await world.store()
        store._client = Unreliable(world.client, fault)
        held = HeldLetters(store)
        async with held.kept():
            gathered = await Gathering(store, None, held, Spool(), APPLICATION, None).gather(Selection())
            assert (len(gathered.letters), len(gathered.foreign)) == (1, 24)
            assert (await store.waiting()).hidden == 25
        waiting = await store.waiting()
        assert (waiting.visible, waiting.hidden) == (25, 0)

    async def test_how_often_a_letter_was_taken(self, world):
        await send(world.destination, letter(1))
        store = await world.store()
        for times in (1, 2):
            (found,) = (await read(store)).values()
            assert found.received == times
            await store.put_back([found])

    async def test_what_cannot_be_kept_is_named(self, world):
        """It was deleted by somebody else, or its 12 hours are over."""
        await send(world.destination, letter(1), letter(2))
        store = await world.store()
        found = list((await read(store)).values())
        broken = type(found[0])("x", "no such handle", b"", {})
        try:
            refused_ones = await store.keep([*found, broken])
        except Exception as error:  # the local server refuses the whole call for one bad handle
            pytest.fail(f"one handle that is over must not cost the others: {error}")
        assert refused_ones == [broken]

    async def test_a_queue_that_moves_letters_away_is_known(self, local_clients, queue):
        other = await queue()
        policy = json.dumps({"deadLetterTargetArn": other.arn, "maxReceiveCount": "3"})
        made = await queue(RedrivePolicy=policy)
        store = LetterQueue(await local_clients.client("sqs"), ApiCaller(), made.arn, clock_wall=time.time)
        await store.prepare()
        assert store.moves_after == 3

    async def test_a_fifo_queue_holds_no_letters(self, local_clients, queue):
        made = await queue(unique("q") + ".fifo", FifoQueue="true")
        with pytest.raises(MisconfiguredResource, match="FIFO"):
            await LetterQueue(await local_clients.client("sqs"), ApiCaller(), made.arn, clock_wall=time.time).prepare()

    async def test_a_missing_queue_is_named(self, local_clients):
        arn = "arn:aws:sqs:us-east-1:000000000000:no-such-queue"
        with pytest.raises(ResourceMissing, match="no-such-queue"):
            await LetterQueue(
                await local_clients.client("sqs"), ApiCaller(), arn, clock_wall=time.time, local=True
            ).prepare()

    async def test_a_missing_permission_is_named_as_iam_names_it(self, world):
        store = await world.store()
        error, _ = refused("AccessDenied", 403, "ChangeMessageVisibilityBatch")

        async def denied(**_):
            raise error

        store._client = type("Denied", (), {"change_message_visibility_batch": staticmethod(denied)})()
        with pytest.raises(PermissionDenied) as caught:
            await store.keep([type("L", (), {"handle": "h"})()])
        assert caught.value.action == "sqs:ChangeMessageVisibility"


class TestBucket:
    @pytest.fixture
    async def world(self, local_clients, queue):
        return await Bucket().make(local_clients, queue)

    async def test_letters_of_others_and_payloads_are_none_of_ours(self, world, local_clients):
        await send(world.destination, letter(1))
        for key in ("dead/aws/lambda/other/x", "dead/readme.txt", "dead/aws/lambda/orders-projector/s/x.payload.json"):
            await world.client.put_object(Bucket=world.bucket, Key=key, Body=b"{}")
        assert numbers((await read(await world.store())).values()) == [1]
        assert len(await objects(local_clients, world.bucket)) == 4

    async def test_both_formats_and_parked_ones_are_found(self, world):
        await send(world.destination, letter(1), letter(2, parked=Parked("p", 1)))
        await send(LambdaObjects(world.folder, "f"), letter(3))
        stored = (await read(await world.store())).values()
        assert numbers(stored) == [1, 2, 3]
        letters = [read_letter(one.body, one.attributes) for one in stored]
        assert {one.application for one in letters} == {APPLICATION}
        assert [one.parked for one in letters if one.parked] == [Parked("p", 1)]

    async def test_parked_ones_come_in_their_order(self, world):
        for ordinal in (10, 2, 1):
            await send(world.destination, letter(ordinal, parked=Parked("p", ordinal)))
        stored = (await read(await world.store())).values()
        assert [read_letter(one.body, one.attributes).parked.ordinal for one in stored] == [1, 2, 10]

    async def test_nothing_is_hidden(self, world):
        store = await world.store()
        assert store.hidden_for == math.inf
        assert await store.waiting() is None


class TestPayloads:
    async def payloads(self, session, *folders, **table):
        rows = {"table": "stream-consumer", "application": APPLICATION, "clock_wall": time.time} | table
        return LetterPayloads(
            OverflowPayloads(await session.client("s3"), ApiCaller(), folders),
            TablePayloads(table.pop("client", None), ApiCaller(), **{k: v for k, v in rows.items() if k != "client"}),
        )

    @pytest.mark.parametrize("form", ["full", "lambda"])
    async def test_an_overflow_is_fetched_and_deleted(self, local_clients, queue, form):
        made, bucket = await queue(MaximumMessageSize=str(LIMIT)), await bucket_of(local_clients)
        folder = S3Folder(await local_clients.client("s3"), ApiCaller(), f"s3://{bucket}/big", clock_wall=lambda: NOW)
        inner = SqsDeadLetters(await local_clients.client("sqs"), ApiCaller(), made.arn)
        sent = letter(1, BIG)
        await send(WithOverflow(inner, folder) if form == "full" else LambdaMessages(inner, folder, "f"), sent)
        store = LetterQueue(await local_clients.client("sqs"), ApiCaller(), made.arn, clock_wall=time.time)
        await store.prepare()
        (stored,) = (await read(store)).values()
        found = read_letter(stored.body, stored.attributes)
        payloads = await self.payloads(local_clients, f"s3://{bucket}/big")
        whole = found.with_payload(await payloads.fetch(found.location))
        assert [one.as_event() for one in whole.records()] == [one.as_event() for one in sent.step.records]
        await payloads.delete(found.location)
        await payloads.delete(found.location)
        assert await objects(local_clients, bucket) == {}
        with pytest.raises(ResourceMissing):
            await payloads.fetch(found.location)

    @pytest.mark.parametrize(
        "location",
        [
            "s3://other/big/x.payload.json",
            "s3://mine/bigger/x.payload.json",
            "s3://mine/big/letters/x",
            "file:///etc/passwd",
            "dynamodb://other-table/orders-projector/label/key",
            "dynamodb://stream-consumer/other/label/key",
            "dynamodb://stream-consumer/orders-projector/label",
            "dynamodb://stream-consumer/orders-projector/label/key#0000",
        ],
    )
    async def test_a_letter_cannot_point_anywhere_else(self, local_clients, location):
        """Whoever may send to the queue could otherwise read and delete any object and any row."""
        payloads = await self.payloads(local_clients, "s3://mine/big")
        for attempt in (payloads.fetch(location), payloads.delete(location)):
            with pytest.raises(ValueError, match="its payload is at"):
                await attempt

    async def test_parts_in_the_lease_table_are_put_together_and_deleted(self, local_clients, dynamodb_leases):
        store = dynamodb_leases.store(APPLICATION)
        await store.prepare(create=True)
        await store.add_lease("label", LeaseRow("shard"))
        held = await store.take("label", await store.lease("label", "shard"), "me", "nonce")
        payload = bytes(range(256)) * 3000
        for part in payload_parts("key", payload):
            await store.store_part("label", held, part)
        table = dynamodb_leases.table
        payloads = await self.payloads(local_clients, table=table, client=dynamodb_leases.client)
        location = location_in_table(table, APPLICATION, "label", "key")
        assert await payloads.fetch(location) == payload
        await dynamodb_leases.client.delete_item(
            TableName=table, Key={"pk": {"S": f"{APPLICATION}#label#letters"}, "sk": {"S": "key#0001"}}
        )
        with pytest.raises(ResourceMissing, match="2 of its 3 parts"):
            await payloads.fetch(location)
        await payloads.delete(location)
        with pytest.raises(ResourceMissing):
            await payloads.fetch(location)


async def test_letters_are_fetched_side_by_side(local_clients, queue):
    """A bucket with thousands would otherwise take an hour."""
    world = await Bucket().make(local_clients, queue)
    await send(world.destination, *map(letter, range(20)))
    store = await world.store()
    under_way, most = 0, 0
    fetch = store._client.get_object

    async def counted(**request):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0)
            return await fetch(**request)
        finally:
            under_way -= 1

    store._client = type("Counted", (), {"__getattr__": lambda _, name: getattr(world.client, name)})()
    store._client.__dict__["get_object"] = counted
    assert len(await read(store)) == 20
    assert most > 1
