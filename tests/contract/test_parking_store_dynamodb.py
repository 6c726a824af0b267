"""What only a real table has of parked keys: items and their damage, versions, pages, conflicts, permissions."""

import re
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from consumer.aws import parked_items
from consumer.aws.errors import TransactionConflict
from consumer.aws.table_rows import CONFLICTS
from consumer.domain.errors import LeaseLost, MisconfiguredResource, Throttled
from consumer.domain.parking import Parked, ParkedKey
from tests.contract.parking_steps import CHILD, DIGEST, claimed, closing, done, parked, row_of
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, SHARD, held

PK = "app#parked"
SK = f"{DIGEST}#{LABEL}#{SHARD}"


def cancelled(*codes):
    """How the service says why it did nothing, one reason for each part of the transaction."""
    answer = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": [{"Code": c} for c in codes]}
    return ClientError(answer, "TransactWriteItems")


@pytest.fixture
async def table(dynamodb_leases):
    await dynamodb_leases.store().prepare(create=True)
    return dynamodb_leases


async def rows(table):
    answer = await table.client.query(
        TableName=table.table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": PK}},
        ConsistentRead=True,
    )
    return {item["sk"]["S"]: item for item in answer["Items"]}


async def test_rows_have_the_documented_keys_and_types(table):
    store = table.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    await done(store, lease, key, shard)
    found = await rows(table)
    version = {"v": {"N": "3"}}
    place = {"pk": {"S": PK}, "sk": {"S": DIGEST}}
    assert found.pop(DIGEST) == place | version | {
        "park_id": {"S": "p1"},
        "state": {"S": "closing"},
        "nonce": {"S": "n1"},
        "since": {"N": "1700000000.25"},
        "reason": {"S": "RetryAttemptsExhausted"},
        "label": {"S": LABEL},
        "shard_id": {"S": SHARD},
        "sequence_number": {"S": "42"},
        "redriver": {"S": "r1"},
        "claim": {"N": "1"},
        "shards": {"N": "1"},
    }
    assert found.pop(SK) == place | version | {
        "sk": {"S": SK},
        "park_id": {"S": "p1"},
        "first": {"S": NUMBER},  # leading zeros and all
        "letters": {"N": "2"},
        "last": {"S": LONG},
        "done": {"N": "2"},
        "closed": {"S": "n1"},
    }
    assert found == {"!changes": place | version | {"sk": {"S": "!changes"}, "changes": {"N": "2"}}}


async def test_the_key_row_counts_its_shards(table):
    """Also when the answer to a shard that has joined was lost, and it joins again."""
    store = table.store()
    key, _ = await parked(store, await held(store))
    for number in range(1, 4):
        lease = await held(store, shard=f"s{number}")
        table.link.lose_response(*table.WRITES, times=2)
        assert await store.join_parked(LABEL, lease, key, row_of(key, lease.shard_id)) is True
        assert await store.join_parked(LABEL, lease, key, row_of(key, lease.shard_id)) is True
        assert (await rows(table))[DIGEST]["shards"] == {"N": str(1 + number)}


async def test_a_shard_row_of_another_time_gives_way(table):
    """The key row was deleted by hand, say."""
    store = table.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    old, left = await parked(store, lease, park_id="p0")
    assert await store.join_parked(LABEL, child, old, row_of(old, CHILD)) is True
    await table.client.delete_item(TableName=table.table, Key={"pk": {"S": PK}, "sk": {"S": DIGEST}})
    assert await store.parked_key(DIGEST) == Parked(None, (left, row_of(old, CHILD)))
    key, shard = await parked(store, lease, park_id="p1")
    mine = row_of(key, CHILD, first="7")
    assert await store.join_parked(LABEL, child, key, mine) is True
    assert await store.parked_key(DIGEST) == Parked(key, (shard, mine))
    key = await closing(store, key)
    closed = [await done(store, lease, key, shard), await done(store, child, key, mine, letters=0)]
    assert await store.free_parked(key, closed) is True
    assert await store.parked() == []


@pytest.mark.parametrize(
    ("sk", "name", "value"),
    [
        (DIGEST, "state", {"S": "odd"}),
        (DIGEST, "claim", {"S": "1"}),
        (SK, "first", {"S": "odd"}),
        (SK, "last", {"N": "1"}),
    ],
)
async def test_a_damaged_row_is_told_with_its_key_and_concerns_no_other(table, sk, name, value):
    store = table.store()
    lease, child = await held(store), await held(store, shard=CHILD)
    key, shard = await parked(store, lease)
    assert await store.join_parked(LABEL, child, key, row_of(key, CHILD))
    other, others = await parked(store, lease, "intact")
    await table.set_attribute(PK, sk, name, value)
    found = await store.parked_key(DIGEST)
    assert {one.digest: one for one in await store.parked()} == {DIGEST: found, "intact": Parked(other, (others,))}
    (damage,) = found.damaged
    assert re.search(rf"pk={PK}, sk={sk} .*{name}.*do not delete it", damage.problem)
    assert found.digest == damage.digest == DIGEST
    if sk == DIGEST:
        assert found == Parked(None, (shard, row_of(key, CHILD)), (damage,))
        assert found.is_unsure(LABEL, SHARD)
        assert found.is_unsure(LABEL, CHILD)
    else:
        assert found == Parked(key, (row_of(key, CHILD),), (damage,))
        assert found.is_unsure(LABEL, SHARD)
        assert not found.is_unsure(LABEL, CHILD)
    assert await store.park(LABEL, lease, key, shard) is False, "it is parked, whatever its rows say"
    assert (await store.parked_key(DIGEST)) == found


async def test_a_damaged_number_of_changes_is_an_error(table):
    store = table.store()
    key, _ = await parked(store, await held(store))
    await claimed(store, key)
    await table.set_attribute(PK, "!changes", "changes", {"S": "1"})
    with pytest.raises(MisconfiguredResource, match="sk=!changes"):
        await store.parked_changes()


@pytest.mark.parametrize("damage", [{"S": "1"}, {"N": "-1"}], ids=["text", "negative"])
async def test_a_step_that_owners_could_not_notice_is_not_taken_and_says_why(table, damage):
    store = table.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    row = await done(store, lease, key, shard)
    await table.set_attribute(PK, "!changes", "changes", damage)
    before = await rows(table)
    steps = [
        lambda: store.claim_parked(key, "r2"),
        lambda: store.begin_closing(key, "n2"),
        lambda: store.free_parked(key, [row]),
        lambda: store.release_parked(key),
    ]
    for step in steps:
        with pytest.raises(MisconfiguredResource, match=r"sk=!changes .* \(delete it: the next redrive"):
            await step()
    assert await rows(table) == before
    await table.client.delete_item(TableName=table.table, Key={"pk": {"S": PK}, "sk": {"S": "!changes"}})
    assert await store.free_parked(key, [row]) is True
    assert await store.parked_changes() == 1


@pytest.mark.parametrize("sk", [DIGEST, SK])
async def test_a_row_that_a_newer_version_has_written_is_left_alone(table, sk):
    store = table.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    row = await done(store, lease, key, shard)
    await table.set_attribute(PK, sk, "v", {"N": "4"})
    before = await rows(table)
    explained = [lambda: store.redriven(key, replace(row, done=9))]
    refused = [
        lambda: store.park(LABEL, lease, key, shard),
        lambda: store.close_parked(LABEL, lease, key, replace(row, letters=9)),
        lambda: store.close_for_owner(key, row, lease),
        lambda: store.free_parked(key, [row]),
    ]
    if sk == DIGEST:
        explained.append(lambda: store.claim_parked(key, "r2"))
        refused.append(lambda: store.end_closing(LABEL, lease, key))
        refused.append(lambda: store.begin_closing(key, "n2"))
        refused.append(lambda: store.release_parked(key))
    else:
        assert await store.count_letters(LABEL, lease, [replace(row, letters=9)]) == [DIGEST]
    (damage,) = (await store.parked_key(DIGEST)).damaged
    assert "schema version 4, this program knows 3: upgrade" in damage.problem
    for write in explained:
        with pytest.raises(MisconfiguredResource, match=rf"sk={sk} .*schema version 4, this program knows 3: upgrade"):
            await write()
    for write in refused:
        assert not await write()
    assert await rows(table) == before


async def test_every_page_is_read(table):
    store = table.store()
    padding = {"padding": {"S": "x" * 200_000}}
    digests = [f"d{number:02}" for number in range(12)]
    for digest in digests:
        key = ParkedKey(digest, "p1")
        for item in (parked_items.key_item(PK, key), parked_items.shard_item(PK, row_of(key))):
            await table.client.put_item(TableName=table.table, Item=item | padding)
    table.calls.clear()
    assert [one.key.digest for one in await store.parked()] == digests
    assert table.calls.count(("Query", "ok")) > 1
    assert all(len(one.shards) == 1 for one in await store.parked())


async def test_a_count_that_is_refused_reads_why_and_writes_the_rest_at_once(table):
    store = table.store()
    lease = await held(store)
    shards = [(await parked(store, lease, f"d{n}"))[1] for n in range(6)]
    await store.count_letters(LABEL, lease, [replace(shards[0], letters=1, last=NUMBER)])
    counted = [replace(shard, letters=1, last=NUMBER) for shard in shards]
    table.calls.clear()
    assert await store.count_letters(LABEL, lease, [replace(counted[0], digest="gone"), *counted]) == ["gone"]
    assert [call for call in table.calls if call[0] == "TransactWriteItems"] == [
        ("TransactWriteItems", "condition_failed"),
        ("TransactWriteItems", "ok"),
    ]
    assert all(one.shards[0].letters == 1 for one in await store.parked())


class TestConflicts:
    """Owners and redrives write to the same rows at the same time."""

    async def test_a_write_that_meets_another_one_is_sent_again(self, table):
        store = table.store()
        lease = await held(store)
        met = table.link.refuse(cancelled("None", "TransactionConflict"), "transact_write_items", times=CONFLICTS - 1)
        key, shard = await parked(store, lease)
        assert met.taken == CONFLICTS - 1
        assert table.calls.count(("TransactWriteItems", "conflict")) == CONFLICTS - 1
        assert await store.parked_key(DIGEST) == Parked(key, (shard,))

    async def test_one_that_meets_others_all_the_time_is_the_caller_s_to_repeat(self, table):
        store = table.store()
        lease = await held(store)
        table.link.refuse(cancelled("TransactionConflict", "None"), "transact_write_items", times=CONFLICTS)
        with pytest.raises(TransactionConflict):
            await parked(store, lease)
        assert await store.parked() == []
        await parked(store, lease)

    async def test_a_refusal_after_a_conflict_with_itself_is_told_from_another_s_success(self, table):
        """No answer came, the first attempt was still under way at the second one, and is through at the third."""
        store = table.store()
        key, _ = await parked(store, await held(store))
        table.link.lose_response("transact_write_items", times=1)
        table.link.refuse(cancelled("TransactionConflict", "None"), "transact_write_items", times=1)
        assert await store.claim_parked(key, "r1") == replace(key, redriver="r1", claim=1)

    async def test_a_throttled_write_is_not_repeated_here(self, table):
        store = table.store()
        lease = await held(store)
        throttled = table.link.refuse(cancelled("ThrottlingError", "None"), "transact_write_items")
        with pytest.raises(Throttled):
            await parked(store, lease)
        assert throttled.taken == 1


async def test_only_the_documented_operations_are_used(table):
    store = table.store()
    lease = await held(store)
    key, shard = await parked(store, lease)
    key = await closing(store, key)
    row = await done(store, lease, key, shard)
    assert await store.free_parked(key, [row]) is True
    assert await store.parked_changes() == 3
    assert await store.parked() == []
    with pytest.raises(LeaseLost):
        await store.count_letters(LABEL, replace(lease, epoch=9), [row])
    used = {operation for operation, _ in table.calls}
    assert used <= {"DescribeTable", "CreateTable", "GetItem", "PutItem", "UpdateItem", "Query", "TransactWriteItems"}
