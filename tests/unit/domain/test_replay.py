"""Which rows a replay sets back, and to what: nothing unsettled is lost, and no parent is behind its child."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.deferred import BEGINNING, DeferredKey
from consumer.domain.frontier import FrontierSnapshot, SettledFilter
from consumer.domain.lease import LeaseRow
from consumer.domain.lineage import MARGIN
from consumer.domain.replay import Position, is_replaying, levels, plan_for_another, plan_in_place, plan_reset
from consumer.domain.replay_start import ReplayStart, StartRule
from consumer.domain.shards import ShardInfo

DAY = 86_400.0


def unknown(shard_id: str) -> None:
    return None


def shard(name: str, *parents: str, open_: bool = True) -> ShardInfo:
    return ShardInfo(name, parents, "1", None if open_ else "99")


FAMILY = [shard("a", open_=False), shard("b", "a", open_=False), shard("c", "b"), shard("d", "b"), shard("x")]
ROWS = {
    "a": LeaseRow("a", state="done", frontier=FrontierSnapshot("9", "1"), epoch=3),
    "b": LeaseRow("b", ("a",), state="done", frontier=FrontierSnapshot("19", "10"), epoch=2),
    "c": LeaseRow("c", ("b",), state="open", frontier=FrontierSnapshot("29", "20", (("31", "33"),)), epoch=5),
    "d": LeaseRow("d", ("b",), state="open", frontier=FrontierSnapshot("28", "21"), window_open=True),
    "x": LeaseRow("x", state="open", frontier=FrontierSnapshot("7", "5")),
}


def after(position, chosen=(), rows=ROWS, listed=FAMILY):
    plan = plan_in_place(position, chosen, listed, rows, unknown)
    assert plan.problems == ()
    return {one.shard_id: one.after for one in plan.rows}


class TestLineage:
    @pytest.mark.parametrize(
        ("chosen", "found"),
        [((), "abcdx"), (("a",), "abcd"), (("b",), "bcd"), (("c",), "c"), (("c", "x"), "cx")],
    )
    def test_a_shard_takes_its_descendants_with_it_and_nothing_else(self, chosen, found) -> None:
        assert sorted(after(Position(100.0), chosen)) == list(found)

    def test_finished_shards_open_again_and_wait_for_their_parents(self) -> None:
        found = after(Position(100.0), ("a",))
        assert {row.state for row in found.values()} == {"waiting"}
        assert all(row.frontier == FrontierSnapshot() and not row.window_open for row in found.values())

    def test_children_are_written_before_their_parents(self) -> None:
        plan = plan_in_place(Position(100.0), (), FAMILY, ROWS, unknown)
        assert [sorted(one.shard_id for one in level) for level in levels(plan)] == [["c", "d"], ["b"], ["a", "x"]]

    def test_a_shard_that_left_the_stream_is_named(self) -> None:
        plan = plan_in_place(Position(100.0), (), FAMILY[1:], ROWS, unknown)
        assert (plan.left, plan.problems) == (("a",), ())
        plan = plan_in_place(Position(100.0), ("a",), FAMILY[1:], ROWS, unknown)
        assert plan.problems == ("a has left the stream: nothing of it can be replayed",)
        plan = plan_in_place(Position(100.0), ("nonsense",), FAMILY, ROWS, unknown)
        assert plan.problems == ("the stream has no shard nonsense",)

    def test_finished_shards_whose_children_were_made_long_before_stay_done(self) -> None:
        made = {"a": 1.0, "b": DAY, "c": 2 * DAY, "d": 2 * DAY, "x": 1.0}.get
        plan = plan_in_place(Position(DAY + MARGIN + 1), (), FAMILY, ROWS, made)
        assert plan.passed == ("a",)
        assert sorted(plan.shards) == ["b", "c", "d", "x"]
        assert plan_in_place(Position(DAY + MARGIN - 1), (), FAMILY, ROWS, made).passed == ()
        no_times = {"a": 0.001, "b": 0.002, "c": 0.003, "d": 0.004, "x": 0.005}.get  # as emulators count
        assert plan_in_place(Position(1.7e9), (), FAMILY, ROWS, no_times).passed == ()

    def test_a_finished_parent_without_a_row_gets_one_and_is_not_read_again(self) -> None:
        rows = {name: row for name, row in ROWS.items() if name != "b"}
        plan = plan_in_place(Position(100.0), ("c",), FAMILY, rows, unknown)
        assert [(row.shard_id, row.state) for row in plan.finished] == [("b", "done")]

    def test_a_descendant_without_a_row_gets_one(self) -> None:
        rows = {name: row for name, row in ROWS.items() if name != "d"}
        found = after(Position(100.0), ("b",), rows)
        assert found["d"] == LeaseRow("d", ("b",), starting_sequence_number="1", replay=ReplayStart(100.0))

    @given(
        st.lists(st.lists(st.integers(0, 9), max_size=2), min_size=1, max_size=10),
        st.sets(st.integers(0, 9), max_size=3),
    )
    def test_no_parent_is_behind_its_child_whatever_the_graph(self, parents, chosen) -> None:
        listed = [
            ShardInfo(f"s{n}", tuple({f"s{parent}" for parent in of if parent < n})) for n, of in enumerate(parents)
        ]
        rows = {one.shard_id: LeaseRow(one.shard_id, one.parents, state="done") for one in listed}
        names = {f"s{n}" for n in chosen if n < len(listed)}
        plan = plan_in_place(Position(100.0), names, listed, rows, unknown)
        changed: set[str] = set()
        for level in levels(plan):  # as they are written
            changed |= {one.shard_id for one in level}
            for one in listed:
                if changed & set(one.parents):
                    assert one.shard_id in changed
        assert names <= changed
        place = {shard_id: at for at, shard_id in enumerate(plan.shards)}
        assert all(place[p] < place[o.shard_id] for o in listed if o.shard_id in place for p in o.parents if p in place)


class TestByNumber:
    def test_the_shard_begins_at_the_record_and_its_children_at_their_first(self) -> None:
        found = after(Position(50.0, "12", "b"))
        assert sorted(found) == ["b", "c", "d"]
        assert (found["b"].state, found["b"].frontier) == ("open", FrontierSnapshot(first="12"))
        assert found["c"].replay == ReplayStart(0.0, "29")

    def test_what_was_not_settled_before_the_record_is_not_skipped(self) -> None:
        found = after(Position(50.0, "32", "c"))["c"]
        assert found.frontier == FrontierSnapshot("29", "20", (("31", "31"),))
        held = {**ROWS, "c": LeaseRow("c", ("b",), state="open", frontier=FrontierSnapshot("29", "20", (), KEYS))}
        assert after(Position(50.0, "26", "c"), rows=held)["c"].frontier == FrontierSnapshot(first="24")

    def test_a_key_that_waits_for_the_parent_takes_the_whole_shard_with_it(self) -> None:
        waits = (DeferredKey("k", BEGINNING),)
        held = {**ROWS, "c": LeaseRow("c", ("b",), state="open", frontier=FrontierSnapshot("29", "20", (), waits))}
        found = after(Position(50.0, "26", "c"), rows=held)["c"]
        assert (found.state, found.frontier) == ("waiting", FrontierSnapshot())

    def test_a_shard_that_nobody_has_read_is_read_whole(self) -> None:
        rows = {**ROWS, "x": LeaseRow("x")}
        assert after(Position(50.0, "6", "x"), rows=rows)["x"].frontier == FrontierSnapshot()


KEYS = (DeferredKey("k", "24", since=60.0),)


class TestUnsettled:
    @given(low=st.integers(1, 30), deferred=st.sets(st.integers(1, 40), max_size=3), since=st.integers(1, 40))
    def test_by_time_nothing_is_left_out_that_was_not_settled(self, low, deferred, since) -> None:
        """Record n was created at second n; records of key n are number n alone."""
        keys = tuple(DeferredKey(f"k{n}", str(n)) for n in sorted(deferred))
        row = LeaseRow("x", state="open", frontier=FrontierSnapshot(str(low), "1", (), keys))
        found = after(Position(float(since)), ("x",), {"x": row}, [shard("x")])["x"]
        rule = StartRule(None, found.replay)
        for number in range(1, 50):
            unsettled = number in deferred or number not in SettledFilter(row.frontier)
            left_out = rule.leaves_out(SimpleNamespace(created=float(number), number=str(number)))
            assert not (left_out and (unsettled or number >= since))
            if not deferred:
                assert left_out == (not unsettled and number < since)

    def test_halted_and_unreadable_rows_are_refused(self) -> None:
        rows = {**ROWS, "x": LeaseRow("x", state="halted", note="trimmed"), "c": LeaseRow("c", corrupt="low is odd")}
        problems = plan_in_place(Position(100.0), (), FAMILY, rows, unknown).problems
        assert ["x is halted" in text for text in problems].count(True) == 1
        assert ["cannot be read (low is odd)" in text for text in problems].count(True) == 1

    def test_a_shard_that_was_complete_needs_nothing_older(self) -> None:
        row = LeaseRow("x", state="open", frontier=FrontierSnapshot("7", "5", complete_at=1000.0))
        assert after(Position(500.0), ("x",), {"x": row}, [shard("x")])["x"].replay == ReplayStart(500.0, "7", True)


class TestReset:
    def test_children_come_first_although_a_damaged_row_does_not_say_its_parents(self) -> None:
        rows = {**ROWS, "b": LeaseRow("b", corrupt="parents is not a list")}
        plan = plan_reset(ReplayStart(0.0), ("a",), FAMILY, rows)
        assert [sorted(one.shard_id for one in level) for level in levels(plan)] == [["c", "d"], ["b"], ["a"]]


class TestTwice:
    def test_an_untouched_replay_may_be_given_another_position(self) -> None:
        first = after(Position(100.0), ("x",))["x"]
        assert is_replaying(first)
        second = after(Position(200.0), ("x",), {**ROWS, "x": first})["x"]
        assert second.replay == ReplayStart(200.0, "7")
        assert after(Position(50.0, "6", "x"), rows={**ROWS, "x": first})["x"].frontier.first == "6"

    def test_one_that_has_begun_is_only_begun_again(self) -> None:
        first = after(Position(100.0), ("x",))["x"]
        begun = LeaseRow("x", state="open", frontier=FrontierSnapshot("6", "5"), replay=first.replay)
        assert after(Position(90.0), ("x",), {"x": begun}, [shard("x")])["x"].replay == ReplayStart(90.0, "7")
        (problem,) = plan_in_place(Position(200.0), ("x",), [shard("x")], {"x": begun}, unknown).problems
        assert "in the middle of a replay" in problem
        through = LeaseRow("x", state="open", frontier=FrontierSnapshot("8", "5"), replay=first.replay)
        assert after(Position(200.0), ("x",), {"x": through}, [shard("x")])["x"].replay == ReplayStart(200.0, "8")


class TestStartRule:
    @pytest.mark.parametrize(
        ("start_at", "replay", "not_before"),
        [
            (None, None, None),
            (50.0, None, 50.0),
            (50.0, ReplayStart(0.0), None),
            (None, ReplayStart(40.0, "7", True), 40.0),
            (None, ReplayStart(40.0, "7"), None),
            (30.0, ReplayStart(40.0, "7"), 30.0),
        ],
    )
    def test_what_need_not_be_read(self, start_at, replay, not_before) -> None:
        assert StartRule(start_at, replay).not_before == not_before

    def test_a_replay_goes_back_behind_the_start_of_the_application(self) -> None:
        rule = StartRule(50.0, ReplayStart(40.0))
        record = SimpleNamespace(created=45.0, number="3")
        assert not rule.leaves_out(record)
        record.created = 39.0
        assert rule.leaves_out(record)
        record.created = 0.0  # unknown
        assert not rule.leaves_out(record)


class TestAnotherApplication:
    def plan(self, position, chosen=()):
        found = plan_for_another(position, chosen, FAMILY, 1000.0, unknown)
        assert found.problems == ()
        return {one.shard_id: one.after for one in found.rows}

    def test_by_time_every_shard_begins_at_it(self) -> None:
        assert {row.replay for row in self.plan(Position(500.0)).values()} == {ReplayStart(500.0, older_settled=True)}

    def test_of_chosen_shards_the_others_begin_now(self) -> None:
        found = self.plan(Position(500.0), ("c",))
        assert {name: row.state for name, row in found.items()} == {
            "a": "done",
            "b": "done",
            "c": "waiting",
            "d": "waiting",
            "x": "waiting",
        }
        assert {name: row.replay.since for name, row in found.items() if row.replay} == {"c": 500, "d": 1000, "x": 1000}

    def test_by_number_ancestors_are_done_and_others_begin_at_the_time_of_the_record(self) -> None:
        found = self.plan(Position(500.0, "12", "b"))
        assert (found["a"].state, found["b"].state, found["b"].frontier.first) == ("done", "open", "12")
        assert (found["c"].replay, found["x"].replay) == (None, ReplayStart(500.0, older_settled=True))
