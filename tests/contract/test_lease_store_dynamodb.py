"""What only a real table has: keys and their schema, pages, attribute types, permissions, lost clients."""

import asyncio
from dataclasses import replace

import pytest

from consumer.aws import bulletins
from consumer.domain.bulletin import Bulletin, Change
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.errors import DependencyError, LeaseLost, MisconfiguredResource, ResourceMissing, SessionFenced
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import EPOCHS_PER_SECOND, LeaseRow, SessionRow
from consumer.ports.leases import Loss, Registration
from tests.contract.test_lease_store import LABEL, LONG, NUMBER, SHARD, STREAM, TABLE, held

PK = f"app#{LABEL}"
SK = f"shard#{SHARD}"


async def raw(leases, pk, sk):
    answer = await leases.client.get_item(TableName=leases.table, Key={"pk": {"S": pk}, "sk": {"S": sk}})
    return answer.get("Item")


@pytest.fixture
async def table(dynamodb_leases):
    await dynamodb_leases.store().prepare(create=True)
    return dynamodb_leases


class TestPrepare:
    async def test_a_missing_table_is_made_only_when_allowed(self, dynamodb_leases):
        store = dynamodb_leases.store()
        with pytest.raises(ResourceMissing):
            await store.prepare(create=False)
        assert await store.prepare(create=True) is True
        assert await store.prepare(create=True) is False
        described = (await dynamodb_leases.client.describe_table(TableName=dynamodb_leases.table))["Table"]
        assert described["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert described["DeletionProtectionEnabled"] is True

    async def test_many_workers_may_create_it_at_the_same_time(self, dynamodb_leases):
        made = await asyncio.gather(*(dynamodb_leases.store().prepare(create=True) for _ in range(8)))
        assert made.count(True) == 1

    @pytest.mark.parametrize(
        ("keys", "types", "found"),
        [
            ([("pk", "HASH")], {"pk": "S"}, r"pk HASH \(S\):"),
            ([("leaseKey", "HASH")], {"leaseKey": "S"}, r"leaseKey HASH"),
            ([("pk", "HASH"), ("sk", "RANGE")], {"pk": "S", "sk": "N"}, r"sk RANGE \(N\)"),
            ([("sk", "HASH"), ("pk", "RANGE")], {"pk": "S", "sk": "S"}, r"sk HASH"),
        ],
    )
    async def test_a_table_with_other_keys_is_refused(self, dynamodb_leases, keys, types, found):
        await dynamodb_leases.client.create_table(
            TableName=dynamodb_leases.table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in types.items()],
        )
        for create in (True, False):
            with pytest.raises(MisconfiguredResource, match=found):
                await dynamodb_leases.store().prepare(create=create)

    async def test_a_table_deleted_meanwhile_is_missing(self, table):
        row = await held(table.store())
        await table.client.update_table(TableName=table.table, DeletionProtectionEnabled=False)
        await table.client.delete_table(TableName=table.table)
        with pytest.raises(ResourceMissing):
            await table.store().save(LABEL, row)
        with pytest.raises(ResourceMissing):
            await table.store().leases(LABEL)

    async def test_an_application_with_a_separator_in_its_name_is_refused(self, dynamodb_leases):
        with pytest.raises(MisconfiguredResource, match="#"):
            dynamodb_leases.store("a#b")


class TestItems:
    async def test_rows_have_the_documented_keys_and_types(self, table):
        store = table.store()
        await store.pin_application("orders")
        await store.register(LABEL, Registration("arn", 5.0))
        await store.open_session(SessionRow("host/1/u"))
        row = await held(store)
        await store.save(LABEL, replace(row, frontier=FrontierSnapshot(NUMBER, NUMBER, (("50", LONG),))))
        await store.record_loss(LABEL, row, Loss("gap", SHARD, NUMBER, None, "trimmed", 5.0))
        await store.store_part(LABEL, row, PayloadPart("f" * 64, 1, 2, b"half"))
        await store.record_loss(LABEL, row, Loss("kept", SHARD, NUMBER, None, "does not fit", 5.0, "dynamodb://..."))
        answer = await table.client.scan(TableName=table.table)
        assert {(item["pk"]["S"], item["sk"]["S"]) for item in answer["Items"]} == {
            ("app", "meta"),
            (PK, "meta"),
            ("app#sessions", "host/1/u"),
            (PK, SK),
            (PK, f"gap#{SHARD}#{NUMBER}"),
            (PK, f"kept#{SHARD}#{NUMBER}"),
            (f"{PK}#letters", f"{'f' * 64}#0001"),
        }
        lease = await raw(table, PK, SK)
        assert lease["low"] == {"S": NUMBER}  # leading zeros and all
        assert lease["runs"] == {"L": [{"S": f"50-{LONG}"}]}
        assert lease["epoch"] == {"N": "1"}
        assert lease["owner"] == {"S": "a"}

    @pytest.mark.parametrize(("version", "what_to_do"), [("4", "upgrade"), ("2", "another application name")])
    async def test_another_schema_is_refused(self, table, version, what_to_do):
        store, one, two = table.store(), STREAM, f"{STREAM}.2"
        await store.pin_application(TABLE)
        await store.switch_stream(None, one)
        await store.register(LABEL, Registration(one, None))
        await table.set_attribute("app", "meta", "schema_version", {"N": version})
        await table.set_attribute(PK, "meta", "schema_version", {"N": version})
        for use in (
            table.store().pin_application(TABLE),
            store.switch_stream(one, two),  # of one that was started before
            store.registration(LABEL),
            store.register(LABEL, Registration(one, None)),
        ):
            with pytest.raises(MisconfiguredResource, match=rf"schema version {version}.*{what_to_do}"):
                await use

    async def test_a_lease_that_a_newer_version_has_written_is_left_alone(self, table):
        """Its owner and its epoch are as before, as a migration may leave them."""
        store = table.store()
        row = await held(store)
        await store.open_session(SessionRow("a"))
        await table.set_attribute(PK, SK, "v", {"N": "4"})
        found = await store.lease(LABEL, SHARD)
        assert "schema version 4" in found.corrupt
        before = await raw(table, PK, SK)
        assert await store.take(LABEL, row, "b", "n") is None
        assert not await store.remove_lease(LABEL, found)
        assert not await store.raise_epoch(LABEL, found, 5)
        assert await store.put_back(LABEL, row, "a") is None
        for write in (
            store.save(LABEL, row),
            store.release(LABEL, row),
            store.release(LABEL, row, "b"),
            store.record_loss(LABEL, row, Loss("gap", SHARD, NUMBER, None, "trimmed", 5.0)),
        ):
            with pytest.raises(LeaseLost, match="schema version 4"):
                await write
        assert await raw(table, PK, SK) == before

    async def test_a_session_that_a_newer_version_has_written_is_not_fenced(self, table):
        store = table.store()
        await store.open_session(SessionRow("s"))
        await table.set_attribute("app#sessions", "s", "v", {"N": "4"})
        assert [session.readable for session in await store.sessions()] == [False]
        assert await store.fence_session("s", 0) is False
        assert "fenced" not in await raw(table, "app#sessions", "s")

    async def test_a_bulletin_that_a_newer_version_has_written_is_left_alone(self, table):
        store, pk = table.store(), f"{PK}#bulletin"
        assert await store.begin_listing(LABEL, Bulletin(), "a")
        await store.post(LABEL, [Change(SHARD, "a", 1, "open")])
        assert (await raw(table, pk, "bulletin"))["v"] == {"N": "3"}
        seen = await store.bulletin(LABEL)
        await table.set_attribute(pk, "bulletin", "v", {"N": "4"})
        before = await raw(table, pk, "bulletin")
        assert await store.bulletin(LABEL) == Bulletin()
        assert not await store.begin_listing(LABEL, seen, "b")
        assert not await store.begin_listing(LABEL, Bulletin(), "b")
        await store.end_listing(LABEL, 1, "a")
        with pytest.raises(DependencyError, match="schema version 4"):
            await store.post(LABEL, [Change(SHARD, "b", 2, "open")])
        await store.expect_rows(LABEL, 1, "a", 7)
        assert await raw(table, pk, "bulletin") == before

    async def test_a_post_that_a_newer_version_has_written_counts_as_not_there(self, table):
        store, pk = table.store(), f"{PK}#posts"
        assert [await store.post(LABEL, [Change(SHARD, "a", epoch, "open")]) for epoch in (1, 2)] == [1, 2]
        await table.set_attribute(pk, "0001", "v", {"N": "4"})
        assert [post.number for post in await store.posts(LABEL, 1, 2)] == [2]

    async def test_changes_that_do_not_read_are_left_out(self, table):
        store, pk = table.store(), f"{PK}#posts"
        await store.post(LABEL, [Change(SHARD, "a", 1, "open"), Change(SHARD, None, 2, "done")])
        odd = ["", "x open s -", "1 odd s -", "1 open s 7", "2 done " + SHARD + " -"]
        await table.set_attribute(pk, "0001", "changes", {"L": [{"S": text} for text in odd]})
        (found,) = await store.posts(LABEL, 1, 1)
        assert found.changes == (Change(SHARD, None, 2, "done"),)
        await table.set_attribute(pk, "0001", "number", {"S": "odd"})
        assert await store.posts(LABEL, 1, 1) == []

    async def test_a_late_post_does_not_take_the_place_of_a_newer_one(self, table, monkeypatch):
        """A worker that was away between counting and putting down."""
        monkeypatch.setattr(bulletins, "MOST_POSTS", 2)
        store = table.store()
        for epoch in (1, 2, 3):
            await store.post(LABEL, [Change(SHARD, None, epoch, "open")])

        async def counted(label, changes):
            return 1

        monkeypatch.setattr(store, "_count_post", counted)
        await store.post(LABEL, [Change(SHARD, None, 9, "open")])
        found = await store.posts(LABEL, 2, 3)
        assert {post.number: post.changes[0].epoch for post in found} == {2: 2, 3: 3}

    async def test_epochs_after_the_restore_of_a_backup_are_above_those_before(self, table):
        """Also when nobody remembers: the table is another one than that in which the rows were written."""
        store = table.store()
        await store.prepare(create=False)
        assert await store.pin_application(TABLE) is False
        if not (await raw(table, "app", "meta"))["lease_table_id"]["S"]:
            pytest.skip("this server gives its tables no id")
        row = await held(store)
        await store.release(LABEL, row)
        await table.set_attribute("app", "meta", "lease_table_id", {"S": "another"})
        again, later = table.store(), table.store()
        for one, restored in ((again, True), (later, False)):
            await one.prepare(create=False)
            assert await one.pin_application(TABLE) is restored
        created = (await table.client.describe_table(TableName=table.table))["Table"]["CreationDateTime"].timestamp()
        first = await later.take(LABEL, await later.lease(LABEL, SHARD), "b", "n")
        assert first.epoch == int(created) * EPOCHS_PER_SECOND
        second = await again.take(LABEL, first, "c", "n2")
        assert second.epoch == first.epoch + 1

    async def test_a_damaged_registration_is_never_guessed(self, table):
        await table.store().register(LABEL, Registration("arn", 5.0))
        await table.set_attribute(PK, "meta", "start_at", {"S": "yesterday"})
        with pytest.raises(MisconfiguredResource, match="start_at"):
            await table.store().registration(LABEL)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("low", {"S": "rubbish"}),
            ("low", {"N": "42"}),
            ("low", {"S": ""}),
            ("low", {"S": "-1"}),
            ("low", {"S": "1" * 200}),
            ("first", {"BOOL": True}),
            ("runs", {"S": "1-2"}),
            ("runs", {"L": [{"S": "2-1"}]}),
            ("runs", {"L": [{"N": "3"}]}),
            ("runs", {"L": [{"S": "12"}]}),
            ("state", {"S": "finished"}),
            ("parents", {"S": "p"}),
            ("epoch", {"S": "1"}),
            ("owner", {"N": "1"}),
        ],
    )
    async def test_any_damage_quarantines_the_shard_and_only_it(self, table, name, value):
        store = table.store()
        await held(store)
        await held(store, shard="shardId-other")
        await table.set_attribute(PK, SK, name, value)
        rows = {row.shard_id: row for row in await store.leases(LABEL)}
        assert name in rows[SHARD].corrupt
        assert rows["shardId-other"].corrupt == ""

    async def test_a_session_with_a_damaged_counter_can_neither_be_seen_nor_renewed(self, table):
        store = table.store()
        await store.open_session(SessionRow("s"))
        await table.set_attribute("app#sessions", "s", "counter", {"S": "7"})
        assert await store.sessions() == []
        with pytest.raises(SessionFenced):
            await store.bump_session("s", 8)

    async def test_unimportant_damage_does_not_hide_a_session(self, table):
        store = table.store()
        await store.open_session(SessionRow("s"))
        for name in ("handoffs", "capacity", "leaving", "started_at", "stream_arn"):
            await table.set_attribute("app#sessions", "s", name, {"L": []})
        assert await store.sessions() == [SessionRow("s")]


class TestPages:
    async def test_every_page_is_read(self, table):
        store = table.store()
        note = "x" * 1000
        rows = [LeaseRow(f"shardId-{number:06}", parents=("p" * 900,) * 4, note=note) for number in range(260)]
        for start in range(0, len(rows), 52):
            await asyncio.gather(*(store.add_lease(LABEL, row) for row in rows[start : start + 52]))
        table.calls.clear()
        found = await store.leases(LABEL)
        assert [row.shard_id for row in found] == [row.shard_id for row in rows]
        assert table.calls.count(("Query", "ok")) > 1  # more than 1 MB

    async def test_sessions_do_not_mix_with_leases(self, table):
        store = table.store()
        await asyncio.gather(*(store.open_session(SessionRow(f"host/{n}/u")) for n in range(30)))
        assert len(await store.sessions()) == 30
        assert await store.leases(LABEL) == []


class TestPermissions:
    async def test_only_the_documented_operations_are_used(self, table):
        store = table.store()
        row = await held(store)
        await store.save(LABEL, row)
        await store.record_loss(LABEL, row, Loss("gap", SHARD, NUMBER, None, "trimmed", 5.0))
        await store.store_part(LABEL, row, PayloadPart("key", 0, 1, b"{}"))
        await store.sessions()
        await store.release(LABEL, row, None)
        with pytest.raises(LeaseLost):
            await store.save(LABEL, row)
        used = {operation for operation, _ in table.calls}
        documented = {"DescribeTable", "CreateTable", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"}
        assert used <= documented | {"TransactWriteItems"}
        assert ("UpdateItem", "condition_failed") in table.calls
