"""The writer of table changes that the tests of the Kinesis source rely on."""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from tests.support.kinesis_changes import (
    BATCH_BYTES,
    BATCH_RECORDS,
    MAX_SWAP,
    TRIES,
    ChangeLog,
    PutRefused,
    TableChange,
    generate,
    item_size,
    put_changes,
)

KEYS = {"key": {"S": "k-001"}}
OLD = {**KEYS, "people": {"N": "56148"}, "name": {"S": "日光"}}
NEW = {**KEYS, "people": {"N": "54148"}, "name": {"S": "日光"}}
CREATED = 1_795_000_000_123_456
EVENT_ID = "26b1b865-1ee7-47f9-816e-d51cdeef9dc5"


def test_an_envelope_as_dynamodb_writes_it() -> None:
    data = TableChange(KEYS, NEW, OLD, CREATED, EVENT_ID).data().decode()
    assert data == (
        f'{{"awsRegion":"us-east-1","eventID":"{EVENT_ID}","eventName":"MODIFY","userIdentity":null,'
        '"recordFormat":"application/json","tableName":"orders","dynamodb":{'
        '"ApproximateCreationDateTime":1795000000123456,"Keys":{"key":{"S":"k-001"}},'
        '"NewImage":{"key":{"S":"k-001"},"people":{"N":"54148"},"name":{"S":"日光"}},'
        '"OldImage":{"key":{"S":"k-001"},"people":{"N":"56148"},"name":{"S":"日光"}},'
        '"SizeBytes":64,"ApproximateCreationDateTimePrecision":"MICROSECOND"},"eventSource":"aws:dynamodb"}'
    )


def test_tables_with_milliseconds_do_not_say_so() -> None:
    change = TableChange(KEYS, NEW, None, CREATED, EVENT_ID, precision="MILLISECOND").envelope()["dynamodb"]
    assert change["ApproximateCreationDateTime"] == 1_795_000_000_123
    assert "ApproximateCreationDateTimePrecision" not in change


@pytest.mark.parametrize(
    ("old", "new", "name", "images"),
    [
        (None, NEW, "INSERT", ["NewImage"]),
        (OLD, NEW, "MODIFY", ["NewImage", "OldImage"]),
        (OLD, None, "REMOVE", ["OldImage"]),
    ],
)
def test_images_that_there_are(old: Any, new: Any, name: str, images: list[str]) -> None:
    envelope = TableChange(KEYS, new, old, CREATED, EVENT_ID).envelope()
    assert envelope["eventName"] == name
    assert [field for field in envelope["dynamodb"] if field.endswith("Image")] == images


def test_a_delete_by_ttl_says_who_did_it() -> None:
    identity = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    envelope = TableChange(KEYS, None, OLD, CREATED, EVENT_ID, user_identity=identity).envelope()
    assert envelope["userIdentity"] == identity


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "日光"}, 6),
        ({"N": "56148"}, 4),
        ({"N": "-1.5"}, 3),
        ({"B": "AAEC"}, 3),
        ({"B": "AA=="}, 1),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"SS": ["a", "bc"]}, 3),
        ({"L": [{"S": "a"}]}, 5),
        ({"M": {"ab": {"S": "c"}}}, 7),
    ],
)
def test_sizes(value: dict[str, Any], size: int) -> None:
    assert item_size({"name": value}) == len("name") + size


def test_the_partition_key_depends_on_the_key_of_the_item_alone() -> None:
    one = TableChange({"a": {"S": "1"}, "b": {"N": "2"}}, NEW, None, CREATED, EVENT_ID)
    same = TableChange({"b": {"N": "2"}, "a": {"S": "1"}}, None, OLD, CREATED + 1, "other")
    assert re.fullmatch(r"[0-9A-F]{32}", one.partition_key)
    assert one.partition_key == same.partition_key
    assert one.partition_key != TableChange({"a": {"S": "1"}}, NEW, None, CREATED, EVENT_ID).partition_key


# --- the generator ---------------------------------------------------------------------------------


def of_items(changes: tuple[TableChange, ...]) -> dict[str, list[TableChange]]:
    found: dict[str, list[TableChange]] = {}
    for change in changes:
        found.setdefault(change.keys["id"]["S"], []).append(change)
    return found


def test_the_same_seed_gives_the_same_log() -> None:
    options: Any = {"changes": 200, "items": 10, "doubled": 0.1, "swapped": 0.1, "precision": "both"}
    assert generate(1, **options) == generate(1, **options)
    assert generate(1, **options) != generate(2, **options)


def test_changes_make_sense() -> None:
    log = generate(3, changes=500, items=20)
    assert log.puts == log.changes
    created = [change.created_us for change in log.changes]
    assert created == sorted(set(created))
    assert len({change.event_id for change in log.changes}) == 500
    assert {uuid.UUID(change.event_id).version for change in log.changes} == {4}
    assert {change.event_name for change in log.changes} == {"INSERT", "MODIFY", "REMOVE"}
    assert len(of_items(log.changes)) == 20
    for changes in of_items(log.changes).values():
        assert changes[0].old_image is None
        for one, two in pairwise(changes):
            assert two.old_image == one.new_image
            assert two.created_us - one.created_us >= 1000
        versions = [int(change.new_image["v"]["N"]) for change in changes if change.new_image]
        assert versions == sorted(set(versions))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("doubled", "swapped"), [(0.1, 0.0), (0.0, 0.1), (0.2, 0.3), (1.0, 0.0)])
def test_the_shares_are_exact(seed: int, doubled: float, swapped: float) -> None:
    log = generate(seed, changes=400, items=25, doubled=doubled, swapped=swapped)
    times = Counter(put.event_id for put in log.puts)
    assert set(times) == {change.event_id for change in log.changes}
    assert Counter(times.values())[2] == round(doubled * 400)
    assert max(times.values()) <= 2
    assert len(wrong_order(log)) == round(swapped * 400 / 2)


def wrong_order(log: ChangeLog) -> list[tuple[TableChange, TableChange]]:
    """Neighbours among the first puts of an item whose newer change comes first."""
    first: dict[str, TableChange] = {}
    for put in log.puts:
        first.setdefault(put.event_id, put)
    neighbours = [pair for puts in of_items(tuple(first.values())).values() for pair in pairwise(puts)]
    return [(newer, older) for newer, older in neighbours if newer.created_us > older.created_us]


def test_swapped_changes_were_made_within_two_seconds() -> None:
    pairs = wrong_order(generate(7, changes=1000, items=300, swapped=0.2))
    assert len(pairs) == 100
    assert max(newer.created_us - older.created_us for newer, older in pairs) <= MAX_SWAP


def test_a_double_is_the_same_data_and_comes_later() -> None:
    log = generate(11, changes=300, items=10, doubled=0.2)
    data = [put.data() for put in log.puts]
    assert [count for count in Counter(data).values() if count == 2] == [2] * 60
    assert any(one != two for one, two in pairwise(data) if Counter(data)[one] == 2), "some come behind others"


def test_the_newest_change_of_each_item_gives_the_final_state() -> None:
    log = generate(13, changes=500, items=20, doubled=0.2, swapped=0.2, precision="both")
    newest: dict[str, dict[str, Any]] = {}
    for put in log.puts:
        envelope = json.loads(put.data())
        name = envelope["dynamodb"]["Keys"]["id"]["S"]
        if created_us(envelope) > created_us(newest.get(name)):
            newest[name] = envelope
    images = {name: each["dynamodb"].get("NewImage") for name, each in newest.items()}
    assert {name: image for name, image in images.items() if image} == log.final()
    last_put = {put.keys["id"]["S"]: put.new_image for put in log.puts}
    assert {name: image for name, image in last_put.items() if image} != log.final(), "the order of the puts would do"


def created_us(envelope: dict[str, Any] | None) -> int:
    if envelope is None:
        return 0
    change = envelope["dynamodb"]
    factor = 1 if "ApproximateCreationDateTimePrecision" in change else 1000
    return int(change["ApproximateCreationDateTime"]) * factor


def test_more_swaps_than_possible_are_refused() -> None:
    with pytest.raises(ValueError, match="only 0 pairs of changes of an item can be swapped, not 1"):
        generate(1, changes=2, items=1_000_000, swapped=1.0)


# --- putting ---------------------------------------------------------------------------------------


class Stream:
    """PutRecords of a stream that refuses what ``refuses`` says: (call, place in it)."""

    def __init__(self, refuses: Any = lambda call, place: False) -> None:
        self.refuses = refuses
        self.calls: list[list[dict[str, Any]]] = []
        self.kept: list[bytes] = []
        self.slept: list[float] = []

    async def put_records(self, **request: Any) -> dict[str, Any]:
        self.calls.append(request["Records"])
        answers = []
        for place, record in enumerate(request["Records"]):
            if self.refuses(len(self.calls), place):
                answers.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"})
            else:
                self.kept.append(record["Data"])
                answers.append({"SequenceNumber": str(len(self.kept)), "ShardId": "shardId-000000000000"})
        return {"FailedRecordCount": sum("ErrorCode" in each for each in answers), "Records": answers}

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_they_are_put_in_order_and_in_batches() -> None:
    log, stream = generate(1, changes=1100, items=10), Stream()
    numbers = await put_changes(stream, "s", log.puts, sleep=stream.sleep)
    assert stream.kept == [put.data() for put in log.puts]
    assert numbers == [str(number) for number in range(1, 1101)]
    assert [len(call) for call in stream.calls] == [BATCH_RECORDS, BATCH_RECORDS, 100]
    assert {entry["PartitionKey"] for entry in stream.calls[0]} <= {put.partition_key for put in log.puts}
    assert stream.slept == []


async def test_a_batch_is_not_larger_than_a_request_may_be() -> None:
    image = {"id": {"S": "a"}, "text": {"S": "x" * (BATCH_BYTES // 3)}}
    stream = Stream()
    await put_changes(stream, "s", [TableChange(KEYS, image, None, CREATED, EVENT_ID)] * 5)
    assert [len(call) for call in stream.calls] == [2, 2, 1]


async def test_what_is_refused_is_put_again_and_nothing_else() -> None:
    log = generate(1, changes=10, items=3)
    stream = Stream(lambda call, place: call == 1 and place in (2, 5))
    numbers = await put_changes(stream, "s", log.puts, sleep=stream.sleep)
    assert [len(call) for call in stream.calls] == [10, 2]
    assert sorted(stream.kept) == sorted(put.data() for put in log.puts)
    assert [stream.kept[int(number) - 1] for number in numbers] == [put.data() for put in log.puts]
    assert len(stream.slept) == 1


async def test_a_stream_that_never_takes_a_record_is_an_error() -> None:
    log, stream = generate(1, changes=3, items=3), Stream(lambda call, place: place == 0)
    with pytest.raises(PutRefused, match=r"s refused 1 of 3 records 8 times \(ProvisionedThroughput.*slow down"):
        await put_changes(stream, "s", log.puts, sleep=stream.sleep)
    assert len(stream.calls) == TRIES
