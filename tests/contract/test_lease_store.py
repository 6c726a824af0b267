"""What every lease store promises, on the one in memory and on real servers: ownership, fencing, sessions."""

import asyncio
from dataclasses import replace

import pytest

from consumer.aws import bulletins
from consumer.domain.bulletin import MOST_CHANGES, Bulletin, Change
from consumer.domain.dead_letter import PART_BYTES, PayloadPart, payload_parts
from consumer.domain.errors import DependencyError, LeaseLost, MisconfiguredResource, ResourceMissing, SessionFenced
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, SessionRow
from consumer.domain.replay_start import ReplayStart
from consumer.ports.leases import Loss, Pinned, Registration, ReplayTrace
from consumer.testing import memory_bulletins

LABEL = "2026-01-02T03:04:05.678"
TABLE = "arn:aws:dynamodb:eu-west-1:111111111111:table/orders"
STREAM = f"{TABLE}/stream/{LABEL}"
SHARD = "shardId-00000001700000000000-abcdef01"
NUMBER = "000000000000000000042"
LONG = "9" * 40


async def held(store, owner="a", shard=SHARD, **fields):
    """A fresh lease that ``owner`` has taken."""
    row = LeaseRow(shard, **fields)
    assert await store.add_lease(LABEL, row)
    taken = await store.take(LABEL, row, owner, f"nonce of {owner} for {shard}")
    assert taken is not None
    return taken


class TestApplication:
    async def test_prepare_is_idempotent(self, leases):
        assert await leases.store().prepare(create=False) is False
        assert await leases.store().prepare(create=True) is False

    async def test_one_application_reads_one_table(self, leases):
        await leases.store().pin_application(TABLE)
        await leases.store().pin_application(TABLE)
        for other in (
            f"{TABLE}-2",
            TABLE.replace("eu-west-1", "us-east-1"),  # the same name in another region, or another account
            TABLE.replace("111111111111", "222222222222"),
        ):
            with pytest.raises(MisconfiguredResource, match=rf"it reads {TABLE}, not {other}:"):
                await leases.store().pin_application(other)
        await leases.store("other").pin_application(f"{TABLE}-2")

    async def test_what_is_pinned_can_be_read(self, leases):
        store = leases.store()
        assert await store.pinned() is None
        await store.pin_application(TABLE)
        assert await leases.store().pinned() == Pinned(TABLE)
        await store.switch_stream(None, STREAM)
        assert await leases.store().pinned() == Pinned(TABLE, STREAM)
        assert await leases.store("other").pinned() is None

    async def test_the_pointer_to_the_stream_moves_only_from_where_it_was_seen(self, leases):
        store = leases.store()
        with pytest.raises(ResourceMissing):
            await store.switch_stream(None, "arn:aws:dynamodb:::table/orders/stream/1")
        one, two = (f"arn:aws:dynamodb:us-east-1:1:table/orders/stream/{n}" for n in (1, 2))
        await store.pin_application("orders")
        assert await store.switch_stream(None, one) == one
        assert await leases.store().switch_stream(None, two) == one
        assert await store.switch_stream(two, two) == one
        assert await store.switch_stream(one, two) == two
        assert await store.switch_stream(one, one) == two
        await store.pin_application("orders")
        assert await store.switch_stream(None, one) == two

    async def test_the_first_registration_holds(self, leases):
        store = leases.store()
        assert await store.registration(LABEL) is None
        first = Registration("arn:one", 1_700_000_000.25, frozenset({"s1", "s2"}))
        assert await store.register(LABEL, first) == first
        assert await store.register(LABEL, Registration("arn:one", None)) == first
        assert await leases.store().registration(LABEL) == first
        assert await store.register("other label", Registration("arn:two", None)) == Registration("arn:two", None)

    async def test_two_applications_in_one_table_do_not_see_each_other(self, leases):
        one, two = leases.store("app"), leases.store("app2")
        mine = await held(one)
        await one.open_session(SessionRow("host/1/u"))
        await one.register(LABEL, Registration("arn", None))
        await one.record_loss(LABEL, mine, Loss("gap", SHARD, None, NUMBER, "trimmed", 5.0))
        assert (await two.leases(LABEL), await two.sessions(), await leases.losses(LABEL, "app2")) == ([], [], [])
        assert await two.registration(LABEL) is None
        assert await two.add_lease(LABEL, LeaseRow(SHARD)) is True
        assert await one.lease(LABEL, SHARD) == mine

    async def test_leases_of_another_stream_are_another_namespace(self, leases):
        store = leases.store()
        await held(store)
        assert await store.leases("2027-01-01T00:00:00.000") == []


class TestLeases:
    async def test_a_row_comes_back_as_it_was_written(self, leases):
        store = leases.store()
        row = LeaseRow(
            SHARD,
            parents=("p1", "p2"),
            state="open",
            frontier=FrontierSnapshot(NUMBER, "000000000000000000001", ((LONG[:-1] + "0", LONG),)),
            starting_sequence_number="000000000000000000001",
            note="two words",
        )
        assert await store.add_lease(LABEL, row) is True
        assert await store.add_lease(LABEL, LeaseRow(SHARD, state="done")) is False
        found = await store.lease(LABEL, SHARD)
        assert replace(found, updated_at=0.0) == row
        assert found.updated_at > 0
        assert await store.leases(LABEL) == [found]
        assert await store.lease(LABEL, "no such shard") is None

    async def test_exactly_one_of_sixteen_takers_wins(self, leases):
        store = leases.store()
        for number in range(5):
            row = LeaseRow(f"{SHARD}-{number}")
            await store.add_lease(LABEL, row)
            takes = [leases.store().take(LABEL, row, f"w{n}", f"nonce-{n}") for n in range(16)]
            won = [found for found in await asyncio.gather(*takes) if found is not None]
            assert len(won) == 1
            assert won[0].epoch == 1
            assert await store.lease(LABEL, row.shard_id) == won[0]

    async def test_take_needs_the_owner_and_the_epoch_as_seen(self, leases):
        store = leases.store()
        first = await held(store, "a")
        assert await store.take(LABEL, LeaseRow(SHARD), "b", "n1") is None  # no longer free
        assert await store.take(LABEL, replace(first, epoch=0), "b", "n2") is None
        assert await store.take(LABEL, replace(first, owner="x"), "b", "n3") is None
        second = await store.take(LABEL, first, "b", "n4")
        assert (second.owner, second.epoch) == ("b", 2)
        assert await store.take(LABEL, LeaseRow("no such shard"), "b", "n5") is None

    async def test_take_keeps_what_the_last_owner_wrote(self, leases):
        store = leases.store()
        first = await held(store, parents=("p",))
        await store.save(LABEL, replace(first, state="open", frontier=FrontierSnapshot(NUMBER, NUMBER)))
        second = await store.take(LABEL, first, "b", "n")
        assert (second.state, second.frontier, second.parents) == ("open", FrontierSnapshot(NUMBER, NUMBER), ("p",))

    async def test_save_replaces_state_and_frontier(self, leases):
        store = leases.store()
        row = await held(store)
        full = FrontierSnapshot(
            NUMBER, NUMBER, (("50", "60"), ("70", "70")), complete_at=1_800_000_000.25, kept_for=86_400.0
        )
        await store.save(LABEL, replace(row, state="open", frontier=full, note="x"))
        assert (await store.lease(LABEL, SHARD)).frontier == full
        await store.save(LABEL, replace(row, state="done", frontier=FrontierSnapshot(LONG, NUMBER)))
        found = await store.lease(LABEL, SHARD)
        assert (found.state, found.frontier, found.note) == ("done", FrontierSnapshot(LONG, NUMBER), "")
        assert (found.owner, found.epoch) == ("a", 1)

    async def test_a_stale_owner_writes_nothing(self, leases):
        store = leases.store()
        stale = await held(store, "a")
        current = await store.take(LABEL, stale, "b", "n")
        for write in (
            store.save(LABEL, replace(stale, state="done")),
            store.save(LABEL, replace(stale, owner="b", state="done")),  # right owner, old epoch
            store.release(LABEL, stale, None),
            store.release(LABEL, stale, "c"),
            store.record_loss(LABEL, stale, Loss("gap", SHARD, NUMBER, NUMBER, "trimmed", 1.0)),
            store.store_part(LABEL, stale, PayloadPart("key", 0, 1, b"{}")),
        ):
            with pytest.raises(LeaseLost, match=r"owner b, epoch 2") as caught:
                await write
            assert caught.value.found == "owner b, epoch 2"
        assert await store.lease(LABEL, SHARD) == current
        assert await leases.losses(LABEL) == []
        assert await leases.payload(LABEL, "key") == b""

    async def test_a_deleted_row_is_lost_and_not_made_again(self, leases):
        store = leases.store()
        row = await held(store)
        await leases.delete_lease(LABEL, SHARD)
        for write in (store.save(LABEL, row), store.release(LABEL, row, "b")):
            with pytest.raises(LeaseLost, match=r"the row was deleted"):
                await write
        assert await store.lease(LABEL, SHARD) is None

    async def test_hand_over_moves_owner_epoch_and_frontier_together(self, leases):
        store = leases.store()
        row = await held(store, "a")
        await store.release(LABEL, replace(row, state="open", frontier=FrontierSnapshot(NUMBER)), "b")
        found = await store.lease(LABEL, SHARD)
        assert (found.owner, found.epoch, found.state, found.frontier.low) == ("b", 2, "open", NUMBER)
        with pytest.raises(LeaseLost):
            await store.save(LABEL, row)
        await store.save(LABEL, found)

    async def test_release_frees_the_lease_for_the_next_epoch(self, leases):
        store = leases.store()
        row = await held(store, "a")
        await store.release(LABEL, row, None)
        free = await store.lease(LABEL, SHARD)
        assert free.owner is None
        with pytest.raises(LeaseLost, match=r"owner nobody"):
            await store.save(LABEL, row)
        again = await store.take(LABEL, free, "a", "n2")
        assert again.epoch == row.epoch + 1
        with pytest.raises(LeaseLost):
            await store.save(LABEL, row)  # same owner, but an epoch ago

    async def test_only_an_unchanged_tombstone_is_removed(self, leases):
        store = leases.store()
        row = await held(store)
        await store.save(LABEL, replace(row, state="done"))
        seen = await store.lease(LABEL, SHARD)
        assert await store.remove_lease(LABEL, replace(seen, epoch=9)) is False
        assert await store.remove_lease(LABEL, replace(seen, state="open")) is False
        assert await store.remove_lease(LABEL, seen) is True
        assert await store.lease(LABEL, SHARD) is None
        assert await store.remove_lease(LABEL, seen) is False

    async def test_a_damaged_frontier_is_reported_and_kept(self, leases):
        store = leases.store()
        row = await held(store)
        await store.save(LABEL, replace(row, frontier=FrontierSnapshot(NUMBER)))
        await leases.damage_frontier(LABEL, SHARD)
        (found,) = await store.leases(LABEL)
        assert "rubbish" in found.corrupt
        taken = await store.take(LABEL, found, "b", "n")
        assert taken.corrupt
        await store.save(LABEL, replace(taken, state="halted", note="quarantined"))
        await store.release(LABEL, taken, None)
        assert (await store.lease(LABEL, SHARD)).corrupt  # the evidence is not written over
        again = await store.take(LABEL, await store.lease(LABEL, SHARD), "b", "n2")
        await store.save(LABEL, replace(again, corrupt="", frontier=FrontierSnapshot(NUMBER)))
        repaired = await store.lease(LABEL, SHARD)
        assert (repaired.corrupt, repaired.frontier.low) == ("", NUMBER)

    async def test_losses_are_kept_once_each(self, leases):
        store = leases.store()
        row = await held(store)
        gap = Loss("gap", SHARD, None, NUMBER, "trimmed", 1_700_000_000.5)
        discarded = Loss("discarded", SHARD, NUMBER, LONG, "RecordAgeExceeded", 1_700_000_001.0)
        for loss in (gap, discarded, gap):
            await store.record_loss(LABEL, row, loss)
        assert await leases.losses(LABEL) == [gap, discarded]
        kept = Loss("kept", SHARD, NUMBER, NUMBER, "does not fit", 1_700_000_002.0, "dynamodb://t/app/label/key")
        await store.record_loss(LABEL, row, kept)
        assert await leases.losses(LABEL) == [gap, discarded, kept]

    async def test_a_payload_is_kept_in_parts_and_each_once(self, leases):
        """The largest of a record; the same part again, as after a lost answer, changes nothing."""
        store = leases.store()
        row = await held(store)
        payload = bytes(number % 251 for number in range(2 * PART_BYTES + 5))
        parts = payload_parts("f" * 64, payload)
        for part in (*parts, parts[0], *payload_parts("e" * 64, b"another")):
            await store.store_part(LABEL, row, part)
        assert await leases.payload(LABEL, "f" * 64) == payload
        assert await leases.payload(LABEL, "e" * 64) == b"another"
        assert await store.leases(LABEL) == [await store.lease(LABEL, SHARD)], "it is not among the leases"


class TestPutBack:
    """Rows that were deleted, and epochs that went back."""

    async def test_an_owner_puts_its_row_back_as_it_was(self, leases):
        store = leases.store()
        row = replace(await held(store, "a", parents=("p",)), state="open", frontier=FrontierSnapshot(NUMBER))
        await store.open_session(SessionRow("a"))
        assert await store.put_back(LABEL, row, "a") is None, "it is there"
        await leases.delete_lease(LABEL, SHARD)
        written = await store.put_back(LABEL, row, "a")
        assert (written.owner, written.epoch, written.frontier) == ("a", row.epoch, row.frontier)
        assert replace(await store.lease(LABEL, SHARD), updated_at=0.0) == replace(written, updated_at=0.0)
        await store.save(LABEL, row)

    async def test_one_whose_session_was_fenced_or_deleted_puts_nothing_back(self, leases):
        """It may have slept since it decided to: others have gone on."""
        store = leases.store()
        row = await held(store, "a")
        await leases.delete_lease(LABEL, SHARD)
        for put_back in (row, replace(row, owner=None)):
            assert await store.put_back(LABEL, put_back, "a") is None
        await store.open_session(SessionRow("a"))
        assert await store.fence_session("a", 0)
        for put_back in (row, replace(row, owner=None)):
            assert await store.put_back(LABEL, put_back, "a") is None
        assert await store.leases(LABEL) == []

    async def test_a_row_from_memory_gets_an_epoch_that_nobody_has_had(self, leases):
        """It is free; whoever puts it back again later has not seen the owners meanwhile, and is above them."""
        store = leases.store()
        await store.open_session(SessionRow("witness/1"))
        memory = LeaseRow(SHARD, epoch=7, state="open", frontier=FrontierSnapshot(NUMBER))
        first = await store.put_back(LABEL, memory, "witness/1")
        assert (first.owner, first.frontier) == (None, memory.frontier)
        assert first.epoch > 7
        taken = await store.take(LABEL, first, "b", "n")
        assert taken.epoch == first.epoch + 1
        await leases.delete_lease(LABEL, SHARD)
        again = await store.put_back(LABEL, memory, "witness/1")
        assert again.epoch not in (first.epoch, taken.epoch)
        assert await store.lease(LABEL, SHARD) == replace(
            again, updated_at=(await store.lease(LABEL, SHARD)).updated_at
        )

    async def test_an_epoch_that_went_back_is_raised_if_the_row_is_as_seen(self, leases):
        store = leases.store()
        row = await held(store, "a", state="open", frontier=FrontierSnapshot(NUMBER))
        assert not await store.raise_epoch(LABEL, replace(row, epoch=9), 12)
        assert not await store.raise_epoch(LABEL, replace(row, owner="b"), 12)
        assert not await store.raise_epoch(LABEL, LeaseRow("no such shard"), 12)
        assert await store.raise_epoch(LABEL, row, 12)
        found = await store.lease(LABEL, SHARD)
        assert (found.owner, found.frontier, found.epoch > 12) == ("a", row.frontier, True)
        with pytest.raises(LeaseLost):
            await store.save(LABEL, row)
        assert not await store.raise_epoch(LABEL, row, 12)
        await store.save(LABEL, found)


class TestSessions:
    async def test_an_incarnation_is_used_once(self, leases):
        store = leases.store()
        session = SessionRow("host/1/u", capacity=3, started_at=1_700_000_000.0, stream_id=STREAM, version="1.2.3")
        await store.open_session(session)
        assert await store.sessions() == [session]
        with pytest.raises(SessionFenced, match=r"used before"):
            await leases.store().open_session(session)

    async def test_bump_and_announce(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await store.bump_session("s", 1)
        await store.announce("s", handoffs=2, leaving=True, failing=("shard-1", "shard-2"))
        assert (await store.sessions())[0].failing == ("shard-1", "shard-2")
        await store.announce("s", handoffs=2, leaving=True)
        assert await store.sessions() == [SessionRow("s", counter=1, handoffs=2, leaving=True)]

    async def test_an_announcement_may_say_how_many_shards_are_taken(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s", capacity=3))
        for capacity, known in ((None, 3), (5, 5), (None, 5), (0, 0)):
            await store.announce("s", handoffs=1, leaving=False, capacity=capacity)
            assert [session.capacity for session in await store.sessions()] == [known]

    async def test_a_counter_never_stands_still_or_goes_back(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await store.bump_session("s", 5)
        for late in (4, 5):
            with pytest.raises(DependencyError, match=r"CounterNotAdvanced"):
                await store.bump_session("s", late)
        assert (await store.sessions())[0].counter == 5

    async def test_a_fenced_session_never_renews(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await store.bump_session("s", 1)
        assert await store.fence_session("s", 1) is True
        assert await store.fence_session("s", 1) is True
        assert await store.fence_session("s", 0) is True  # fenced already, whatever was seen
        for write in (store.bump_session("s", 2), store.announce("s", handoffs=1, leaving=False)):
            with pytest.raises(SessionFenced, match=r"fenced"):
                await write
        assert await store.sessions() == [SessionRow("s", counter=1, fenced=True)]

    async def test_a_session_that_moved_is_not_fenced(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await store.bump_session("s", 1)
        assert await store.fence_session("s", 0) is False
        assert await store.fence_session("nobody", 0) is False
        await store.bump_session("s", 2)

    async def test_fence_and_bump_race_has_one_winner(self, leases):
        store = leases.store()
        for number in range(8):
            await store.open_session(SessionRow(f"s{number}"))
            fenced, bumped = await asyncio.gather(
                store.fence_session(f"s{number}", 0), store.bump_session(f"s{number}", 1), return_exceptions=True
            )
            assert (fenced is True) == isinstance(bumped, SessionFenced)

    async def test_a_deleted_session_never_renews(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await leases.delete_session("s")
        for write in (store.bump_session("s", 1), store.announce("s", handoffs=1, leaving=False)):
            with pytest.raises(SessionFenced, match=r"deleted"):
                await write
        assert await store.sessions() == []
        await store.close_session("s")  # harmless

    async def test_close_removes_the_row(self, leases):
        store = leases.store()
        await store.open_session(SessionRow("s"))
        await store.close_session("s")
        assert await store.sessions() == []


class TestBulletin:
    async def test_a_turn_to_list_has_one_worker(self, leases):
        store = leases.store()
        seen = await store.bulletin(LABEL)
        assert seen == Bulletin()
        begun = await asyncio.gather(*(leases.store().begin_listing(LABEL, seen, f"w{n}") for n in range(5)))
        assert sum(begun) == 1
        now = await store.bulletin(LABEL)
        assert now == Bulletin(1, f"w{begun.index(True)}", listing=True)
        assert not await store.begin_listing(LABEL, seen, "late")
        assert await store.begin_listing(LABEL, now, "next")
        assert await store.bulletin(LABEL) == Bulletin(2, "next", listing=True)

    async def test_only_the_turn_under_way_ends(self, leases):
        store = leases.store()
        assert await store.begin_listing(LABEL, Bulletin(), "a")
        await store.end_listing(LABEL, 1, "b")
        await store.end_listing(LABEL, 2, "a")
        assert await store.bulletin(LABEL) == Bulletin(1, "a", listing=True)
        await store.end_listing(LABEL, 1, "a")
        assert await store.bulletin(LABEL) == Bulletin(1, "a")
        assert await store.begin_listing(LABEL, Bulletin(1, "a"), "b")
        await store.end_listing(LABEL, 2, "b", failed=True)
        assert await store.bulletin(LABEL) == Bulletin(2)

    async def test_the_turn_under_way_says_how_many_rows_there_will_be(self, leases):
        store = leases.store()
        assert await store.begin_listing(LABEL, Bulletin(), "a")
        await store.expect_rows(LABEL, 1, "b", 3)
        await store.expect_rows(LABEL, 2, "a", 3)
        assert await store.bulletin(LABEL) == Bulletin(1, "a", listing=True)
        await store.expect_rows(LABEL, 1, "a", 3)
        assert await store.bulletin(LABEL) == Bulletin(1, "a", listing=True, rows=3)
        await store.end_listing(LABEL, 1, "a")
        assert await store.bulletin(LABEL) == Bulletin(1, "a", rows=3)

    async def test_posts_are_counted_and_kept(self, leases):
        one, two = leases.store(), leases.store()
        owners = (f"host/{n}/u" if n % 2 else None for n in range(MOST_CHANGES))
        many = [Change(f"s{n}", owner, n + 1, "draining") for n, owner in enumerate(owners)]
        new = [Change("new", None, 0, "open", ("p1", "p2")), Change("root", None, 0, "done")]
        assert await one.post(LABEL, many) == 1
        assert await one.begin_listing(LABEL, await one.bulletin(LABEL), "a")
        numbers = await asyncio.gather(one.post(LABEL, new), two.post(LABEL, many[:1]))
        assert sorted(numbers) == [2, 3]
        found = await two.bulletin(LABEL)
        assert found == Bulletin(1, "a", listing=True, posts=3, changes=MOST_CHANGES + 3)
        posts = {post.number: list(post.changes) for post in await two.posts(LABEL, 1, 3)}
        assert posts == {1: many, numbers[0]: new, numbers[1]: many[:1]}
        assert {post.number for post in await two.posts(LABEL, 2, 2)} == {2}
        assert await two.posts(LABEL, 4, 9) == []
        await one.end_listing(LABEL, 1, "a", rows=5000)
        assert await two.bulletin(LABEL) == replace(found, listing=False, rows=5000)

    async def test_later_posts_take_the_places_of_the_oldest(self, leases, monkeypatch):
        for module in (bulletins, memory_bulletins):
            monkeypatch.setattr(module, "MOST_POSTS", 5)
        store = leases.store()
        for number in range(1, 14):
            assert await store.post(LABEL, [Change(SHARD, None, number, "open")]) == number
        for first, last in ((9, 13), (1, 13), (9, 9), (10, 11), (11, 14), (13, 13)):
            found = {post.number: post.changes[0].epoch for post in await store.posts(LABEL, first, last)}
            assert found == {number: number for number in range(max(first, 9), min(last, 13) + 1)}
        assert await store.posts(LABEL, 1, 8) == []

    async def test_bulletins_are_per_stream_and_no_leases(self, leases):
        store = leases.store()
        assert await store.begin_listing(LABEL, Bulletin(), "a")
        assert await store.bulletin("other label") == Bulletin()
        assert await leases.store("app2").bulletin(LABEL) == Bulletin()
        await store.post(LABEL, [Change(SHARD, "a", 1, "open")])
        assert await store.posts("other label", 1, 1) == await leases.store("app2").posts(LABEL, 1, 1) == []
        assert await store.leases(LABEL) == []


class TestReplay:
    async def test_where_a_replay_has_set_a_shard_back_stays_in_its_row(self, leases):
        store = leases.store()
        start = ReplayStart(1234.5, NUMBER, older_settled=True)
        taken = await held(store, frontier=FrontierSnapshot(LONG))
        await store.save(LABEL, replace(taken, state="waiting", frontier=FrontierSnapshot(), replay=start))
        found = await store.lease(LABEL, SHARD)
        assert (found.replay, found.frontier, found.state, found.corrupt) == (start, FrontierSnapshot(), "waiting", "")
        await store.release(LABEL, found)
        taken = await store.take(LABEL, await store.lease(LABEL, SHARD), "b", "another")
        assert taken.replay == start
        await store.save(LABEL, replace(taken, replay=None))
        assert (await store.lease(LABEL, SHARD)).replay is None

    async def test_its_trace_is_no_lease(self, leases):
        store = leases.store()
        trace = ReplayTrace("host/1", 1234.5, "from 45m", (SHARD,))
        await store.record_replay(LABEL, trace)
        await store.record_replay(LABEL, trace)
        assert await store.leases(LABEL) == []
