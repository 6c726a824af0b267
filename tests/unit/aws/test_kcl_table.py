"""The KCL's lease table as items: every kind of row of every version, damaged ones, pages and throttles."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from consumer.aws import kcl_table
from consumer.aws.errors import ApiCaller
from consumer.aws.kcl_items import reading_of
from consumer.aws.kcl_table import KclTable
from consumer.domain.errors import MisconfiguredResource, ResourceMissing, Throttled
from consumer.domain.kcl_leases import KclLease, OtherRow
from tests.support.kcl_items import KEYS, LEADER, METRICS, MIGRATION, STREAM, Item, lease_item

NUMBER = "49590338271490256608559692538361571095921575989136588898"
SHARD = "shardId-000000000042"


class TestLeases:
    def test_a_lease_of_kcl_1(self) -> None:
        [found] = reading_of([lease_item(SHARD, NUMBER, sub=3, parents=("b", "a"))]).leases
        assert found == KclLease(SHARD, SHARD, NUMBER, 3, owner="worker-1", parents=("a", "b"))

    def test_a_lease_that_nobody_owns_and_that_was_never_checkpointed(self) -> None:
        item = lease_item(SHARD, "TRIM_HORIZON", owner=None)
        del item["checkpointSubSequenceNumber"]
        assert reading_of([item]).leases == (KclLease(SHARD, SHARD, "TRIM_HORIZON"),)

    def test_a_lease_of_kcl_3_in_a_hand_over_with_a_pending_checkpoint(self) -> None:
        item = lease_item(
            SHARD,
            NUMBER,
            entityType={"S": "LEASE"},
            checkpointOwner={"S": "worker-2"},
            pendingCheckpoint={"S": "500"},
            pendingCheckpointSubSequenceNumber={"N": "4"},
            pendingCheckpointState={"B": b"state"},
            childShardIds={"SS": ["c"]},
            startingHashKey={"S": "0"},
            endingHashKey={"S": "1"},
            throughputKBps={"N": "12.5"},
        )
        [found] = reading_of([item]).leases
        assert (found.owner, found.checkpoint_owner) == ("worker-1", "worker-2")
        assert found.pending == "500, sub-sequence number 4"

    def test_a_lease_of_an_application_with_several_streams(self) -> None:
        key = f"123456789012:orders:1700000000:{SHARD}"
        named = {"streamName": {"S": "123456789012:orders:1700000000"}, "shardId": {"S": SHARD}}
        [found] = reading_of([lease_item(key, NUMBER, **named)]).leases
        assert (found.key, found.stream, found.shard_id) == (key, "123456789012:orders:1700000000", SHARD)

    @pytest.mark.parametrize("checkpoint", ["SHARD_END", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP", "0"])
    def test_every_word_for_a_checkpoint(self, checkpoint: str) -> None:
        assert [lease.checkpoint for lease in reading_of([lease_item(SHARD, checkpoint)]).leases] == [checkpoint]


def test_other_rows_are_recognised_and_are_no_leases() -> None:
    old_metrics = {name: value for name, value in METRICS.items() if name != "entityType"}
    new_kind = {"leaseKey": {"S": "x"}, "entityType": {"S": "NEW_KIND"}}
    found = reading_of([METRICS, LEADER, MIGRATION, STREAM, old_metrics, new_kind])
    assert (found.leases, found.problems) == ((), ())
    assert found.others == (
        OtherRow("worker-1", "metrics of a worker", "worker-1"),
        OtherRow("Leader", "lock of the leader", "worker-1"),
        OtherRow("Migration3.0", "state of the migration to KCL 3"),
        OtherRow("1:orders:1", "name of a stream"),
        OtherRow("worker-1", "metrics of a worker", "worker-1"),
        OtherRow("x", "of the kind NEW_KIND"),
    )


def without(item: Item, name: str) -> Item:
    return {key: value for key, value in item.items() if key != name}


WHOLE = lease_item(SHARD, NUMBER)
MULTI = lease_item(f"1:orders:1:{SHARD}", NUMBER)


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (without(WHOLE, "checkpoint"), "it has no checkpoint"),
        (WHOLE | {"checkpoint": {"S": ""}}, "checkpoint is not a sequence number: ''"),
        (WHOLE | {"checkpoint": {"S": "SHARD-END"}}, "checkpoint is not a sequence number: 'SHARD-END'"),
        (WHOLE | {"checkpoint": {"S": "-5"}}, "checkpoint is not a sequence number: '-5'"),
        (WHOLE | {"checkpoint": {"S": "٣"}}, "checkpoint is not a sequence number"),
        (WHOLE | {"checkpoint": {"N": "5"}}, "checkpoint is not a string"),
        (WHOLE | {"checkpointSubSequenceNumber": {"N": "-1"}}, "checkpointSubSequenceNumber is not a count"),
        (WHOLE | {"checkpointSubSequenceNumber": {"S": "1"}}, "checkpointSubSequenceNumber is not a number"),
        (without(WHOLE, "leaseCounter"), "leaseCounter is not a number"),
        (WHOLE | {"leaseOwner": {"N": "1"}}, "leaseOwner is not a string"),
        (WHOLE | {"parentShardId": {"S": "p"}}, "parentShardId is not a list"),
        (WHOLE | {"pendingCheckpoint": {"N": "1"}}, "pendingCheckpoint is not a string"),
        (WHOLE | {"entityType": {"S": "NEW_KIND"}}, "it has a checkpoint, and its kind is unknown: 'NEW_KIND'"),
        (MULTI | {"streamName": {"S": "1:payments:1"}}, "streamName is '1:payments:1', and its key says '1:orders:1'"),
        (MULTI | {"shardId": {"S": "other"}}, f"shardId is 'other', and its key says '{SHARD}'"),
        ({"leaseKey": {"S": "x"}}, "it has no checkpoint"),
    ],
)
def test_a_damaged_row_is_named_and_guessed_from_nothing(item: Item, says: str) -> None:
    found = reading_of([item, lease_item("good", "1")])
    assert [lease.key for lease in found.leases] == ["good"]
    [problem] = found.problems
    assert problem.startswith(f"{item['leaseKey']['S']}: ")
    assert says in problem


def test_the_same_content_in_another_order_is_the_same() -> None:
    """DynamoDB promises no order of attributes, nor in a set."""
    one = lease_item(SHARD, NUMBER, parents=("a", "b"), childShardIds={"SS": ["c", "d"]})
    two = dict(reversed(one.items())) | {"parentShardId": {"SS": ["b", "a"]}, "childShardIds": {"SS": ["d", "c"]}}
    assert reading_of([one]).contents == reading_of([two]).contents
    assert reading_of([METRICS]).contents == reading_of([METRICS | {"sts": METRICS["sts"]}]).contents
    assert reading_of([one]).contents != reading_of([one | {"leaseCounter": {"N": "8"}}]).contents


# --- the table ---------------------------------------------------------------------------------------


class Client:
    """A dynamodb client with pages of one item, which throttles a few times."""

    def __init__(self, items: list[Item], *, throttles: int = 0, keys: dict[str, Any] = KEYS) -> None:
        self.items = items
        self.throttles = throttles
        self.keys = keys
        self.scans: list[dict[str, Any]] = []

    async def scan(self, **request: Any) -> dict[str, Any]:
        self.scans.append(request)
        if self.throttles:
            self.throttles -= 1
            raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Scan")
        start = request.get("ExclusiveStartKey", {"leaseKey": {"S": "0"}})["leaseKey"]["S"]
        place = int(start)
        more = {"LastEvaluatedKey": {"leaseKey": {"S": str(place + 1)}}} if place + 1 < len(self.items) else {}
        return {"Items": self.items[place : place + 1], **more}

    async def describe_table(self, **request: Any) -> dict[str, Any]:
        if self.keys == {}:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "DescribeTable")
        return {"Table": self.keys}


async def test_all_pages_are_read_consistently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcl_table, "THROTTLED_PAUSE", 0.0)
    client = Client([lease_item(f"s{n}", str(n)) for n in range(3)], throttles=2)
    found = await KclTable(client, ApiCaller(), "kcl").read()
    assert [lease.checkpoint for lease in found.leases] == ["0", "1", "2"]
    assert len(client.scans) == 5
    assert all(scan["ConsistentRead"] is True and scan["TableName"] == "kcl" for scan in client.scans)


async def test_a_table_that_stays_throttled_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcl_table, "THROTTLED_PAUSE", 0.0)
    with pytest.raises(Throttled):
        await KclTable(Client([], throttles=100), ApiCaller(), "kcl").read()


def keys(*names: str) -> dict[str, Any]:
    return {
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
        ],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
    }


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (keys("wid"), "it is the table of the KCL's worker metrics: its keys are wid HASH (S)"),
        (keys("key"), "it is the table of the KCL's coordinator: "),
        (keys("pk", "sk"), "it is a lease table of stream-consumer: "),
        (
            keys("leaseKey", "sort"),
            "its keys are leaseKey HASH (S), sort RANGE (S), and the KCL's leases have leaseKey",
        ),
        (keys("id"), "is no lease table of the KCL: its keys are id HASH (S)"),
    ],
)
async def test_another_table_is_refused_by_its_keys(found: dict[str, Any], says: str) -> None:
    with pytest.raises(MisconfiguredResource) as error:
        await KclTable(Client([], keys=found), ApiCaller(), "kcl").check()
    assert says in str(error.value)


async def test_a_missing_table_is_named_with_what_to_look_for() -> None:
    await KclTable(Client([]), ApiCaller(), "kcl").check()
    with pytest.raises(ResourceMissing, match=r"table kcl does not exist .*the KCL names it after its application"):
        await KclTable(Client([], keys={}), ApiCaller(), "kcl").check()
