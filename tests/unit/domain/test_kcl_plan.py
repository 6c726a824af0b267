"""Which rows the leases of the KCL become: finished shards, checkpoints, starting positions, parents without one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.kcl_leases import KclLease
from consumer.domain.kcl_plan import ImportPlan, plan_import
from consumer.domain.kinesis_format import KINESIS_FORMAT
from consumer.domain.kinesis_numbers import book_number
from consumer.domain.lease import LeaseRow
from consumer.domain.shards import ShardInfo, may_start, missing_leases, settled_before
from consumer.domain.source_format import SourceFormat, dynamodb_format

DYNAMODB, KINESIS = dynamodb_format("id"), KINESIS_FORMAT
UNTOUCHED = FrontierSnapshot()


def lease(shard_id: str, checkpoint: str, *parents: str, sub: int = 0, pending: str = "") -> KclLease:
    return KclLease(shard_id, shard_id, checkpoint, sub, parents=parents, pending=pending)


def shard(shard_id: str, *parents: str, first: int = 100, last: int | None = 199) -> ShardInfo:
    return ShardInfo(shard_id, parents, str(first), None if last is None else str(last))


def planned(
    leases: list[KclLease],
    listed: list[ShardInfo],
    starts: Mapping[str, FrontierSnapshot | None] | None = None,
    *,
    source: SourceFormat = DYNAMODB,
    closing: bool = False,
    caught_up: tuple[str, ...] = (),
) -> ImportPlan:
    number = source.book_number
    return plan_import(leases, listed, number, starts=starts or {}, caught_up=caught_up, closing=closing)


def rows(plan: ImportPlan) -> dict[str, LeaseRow]:
    return {one.row.shard_id: one.row for one in plan.rows}


def shown(plan: ImportPlan) -> dict[str, str]:
    """State and number of every row."""
    return {one.row.shard_id: f"{one.row.state} {one.row.frontier.low or ''}".strip() for one in plan.rows}


# --- checkpoints -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "listed", "becomes"),
    [
        ("SHARD_END", shard("s"), "done"),
        ("150", shard("s"), "open 150"),
        ("100", shard("s", last=None), "open 100"),
        ("199", shard("s"), "open 199"),
        ("TRIM_HORIZON", shard("s"), "waiting"),
        ("TRIM_HORIZON", shard("s", last=None), "waiting"),
    ],
)
def test_what_a_checkpoint_becomes(checkpoint: str, listed: ShardInfo, becomes: str) -> None:
    plan = planned([lease("s", checkpoint)], [listed])
    assert shown(plan) == {"s": becomes}
    assert (plan.problems, plan.undecided, plan.notes, plan.discovered) == ((), (), (), ())
    [one] = plan.rows
    assert one.checkpoint == checkpoint
    row = one.row
    assert (row.owner, row.epoch, row.starting_sequence_number) == (None, 0, "100")
    assert row.frontier in (UNTOUCHED, FrontierSnapshot(low=checkpoint))


def test_numbers_keep_their_digits() -> None:
    """The service wants them back as it wrote them."""
    number = "000000000000000000142"
    assert rows(planned([lease("s", number)], [shard("s")]))["s"].frontier == FrontierSnapshot(low=number)


@pytest.mark.parametrize("sub", [0, 7])
def test_records_of_kinesis_are_numbered_as_the_books_do(sub: int) -> None:
    """The KCL has processed up to and including this record of an aggregate."""
    plan = planned([lease("s", "150", sub=sub)], [shard("s", last=None)], source=KINESIS)
    assert rows(plan)["s"].frontier == FrontierSnapshot(low=book_number("150", sub))
    assert plan.rows[0].checkpoint == ("150, sub-sequence number 7" if sub else "150")


@pytest.mark.parametrize(
    ("found", "listed", "source", "says"),
    [
        (
            lease("s", "150", sub=3),
            shard("s"),
            DYNAMODB,
            "sub-sequence number 3 of 150: no record of this stream holds others",
        ),
        (
            lease("s", "150", sub=10**7),
            shard("s"),
            KINESIS,
            "s is at 150, sub-sequence number 10000000: sub-sequence number 10000000 of",
        ),
        (lease("s", "99"), shard("s"), KINESIS, "s has the checkpoint 99, which is none of its shard (100 to 199)"),
        (lease("s", "200"), shard("s"), DYNAMODB, "s has the checkpoint 200, which is none of its shard (100 to 199)"),
        (lease("s", "99"), shard("s", last=None), KINESIS, "which is none of its shard (100 to open)"),
        (lease("s", "SHARD_END"), shard("s", last=None), DYNAMODB, "s is at SHARD_END, but the stream lists its shard"),
    ],
)
def test_what_cannot_be_right_is_a_problem_and_no_row(
    found: KclLease, listed: ShardInfo, source: SourceFormat, says: str
) -> None:
    """A stream of the same name before this one has the same shard ids, and other numbers."""
    plan = planned([found, lease("t", "150")], [listed, shard("t")], source=source)
    assert len(plan.problems) == 1
    assert says in plan.problems[0]
    assert shown(plan).keys() == {"t"}


def test_shards_of_a_disabled_stream_end_although_they_are_listed_as_open() -> None:
    plan = planned([lease("s", "SHARD_END")], [shard("s", last=None)], closing=True)
    assert (shown(plan), plan.problems) == ({"s": "done"}, ())


def test_a_table_of_another_stream_is_noticed() -> None:
    plan = planned([lease("a", "150"), lease("b", "SHARD_END")], [shard("s")])
    assert len(plan.problems) == 1
    assert "the stream lists none of the 2 shards of the table (a, b)" in plan.problems[0]


def test_two_leases_of_one_shard_are_a_problem() -> None:
    twice = KclLease("1:orders:1:s", "s", "160")
    plan = planned([lease("s", "150"), twice], [shard("s")])
    assert plan.problems == ("there is more than one lease of s",)


def test_a_pending_checkpoint_is_told_and_does_not_count() -> None:
    """It was prepared and never made: the records between are handled again."""
    plan = planned([lease("s", "150", pending="170")], [shard("s")])
    assert shown(plan) == {"s": "open 150"}
    assert len(plan.notes) == 1
    assert (
        "s has a pending checkpoint 170: it was prepared and never made, so the checkpoint 150 holds" in plan.notes[0]
    )


# --- trimmed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "becomes"), [("150", "open 150"), ("TRIM_HORIZON", "waiting"), ("LATEST", "waiting")]
)
def test_a_shard_that_is_not_listed_any_more_gets_its_row_and_a_note(checkpoint: str, becomes: str) -> None:
    """So the daemon finds out, leaves its trace, and ``on_gap`` decides; its parents are known from the KCL."""
    plan = planned([lease("gone", checkpoint, "older"), lease("s", "150")], [shard("s")], {"gone": UNTOUCHED})
    assert shown(plan)["gone"] == becomes
    assert rows(plan)["gone"].parents == ("older",)
    assert len(plan.notes) == 1
    assert f"gone is at {checkpoint}, and the stream does not list its shard any more" in plan.notes[0]


def test_a_finished_shard_that_is_not_listed_any_more_needs_no_note() -> None:
    plan = planned([lease("gone", "SHARD_END"), lease("s", "150", "gone")], [shard("s", "gone")])
    assert (shown(plan), plan.notes) == ({"gone": "done", "s": "open 150"}, ())


def test_behind_a_checkpoint_that_was_trimmed_the_oldest_record_left_is_next_if_nothing_was_lost() -> None:
    """Somebody has said so: the shard counts as begun, and leaves no gap."""
    leases, listed = [lease("s", "150"), lease("t", "160")], [shard("s"), shard("t")]
    plan = planned(leases, listed, caught_up=("s",))
    assert shown(plan) == {"s": "open", "t": "open 160"}
    assert rows(plan)["s"].frontier == UNTOUCHED


# --- starting positions ------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", ["LATEST", "AT_TIMESTAMP"])
def test_somebody_decides_where_a_shard_without_checkpoint_begins(checkpoint: str) -> None:
    leases, listed = [lease("s", checkpoint), lease("t", "150")], [shard("s"), shard("t")]
    plan = planned(leases, listed)
    assert [one.key for one in plan.undecided] == ["s"]
    assert shown(plan) == {"t": "open 150"}
    for decided, becomes in ((UNTOUCHED, "waiting"), (FrontierSnapshot(low="120"), "open 120"), (None, "done")):
        plan = planned(leases, listed, {"s": decided})
        assert (plan.undecided, shown(plan)["s"]) == ((), becomes)


def test_behind_a_parent_that_is_still_to_be_read_all_of_a_shard_is_to_be_read() -> None:
    """The KCL leases whole lineages AT_TIMESTAMP. A row that is begun would not wait for its parent."""
    leases = [lease("p", "AT_TIMESTAMP"), lease("c", "AT_TIMESTAMP", "p")]
    listed = [shard("p"), shard("c", "p", first=200, last=None)]
    plan = planned(leases, listed, {"p": FrontierSnapshot(low="150"), "c": FrontierSnapshot(low="210")})
    assert shown(plan) == {"p": "open 150", "c": "waiting"}
    plan = planned(leases, listed, {"p": None, "c": FrontierSnapshot(low="210")})
    assert shown(plan) == {"p": "done", "c": "open 210"}


# --- lineage -----------------------------------------------------------------------------------------

#   t -> p -> c   and a merge: a, b -> m
LINEAGE = [
    shard("t", first=100, last=199),
    shard("p", "t", first=200, last=299),
    shard("c", "p", first=300, last=None),
]


@pytest.mark.parametrize("checkpoint", ["350", "LATEST"])
def test_all_that_comes_before_a_shard_that_was_begun_is_done(checkpoint: str) -> None:
    """Their leases were removed. Discovery alone would know it of the parent, and read the grandparent again."""
    plan = planned([lease("c", checkpoint, "p")], LINEAGE, {"c": UNTOUCHED})
    assert {i: state for i, state in shown(plan).items() if i != "c"} == {"t": "done", "p": "done"}
    assert plan.discovered == ()
    made = rows(plan)
    assert may_start(made["c"], made)
    assert [one.checkpoint for one in plan.rows if one.row.shard_id in "tp"] == ["", ""]
    alone = {"c": made["c"]}
    if made["c"].state == "open":
        assert settled_before(alone.values()) == {"p"}, "which is why the import writes the row of t"


def test_before_a_shard_that_was_not_begun_nothing_says_that_a_parent_was_finished() -> None:
    plan = planned([lease("c", "TRIM_HORIZON", "p"), lease("other", "500")], [*LINEAGE, shard("other", last=None)])
    assert shown(plan) == {"c": "waiting", "other": "open 500"}
    assert plan.discovered == ("t", "p")
    assert len(plan.notes) == 1
    assert "p: no lease, and their children are at TRIM_HORIZON" in plan.notes[0]


def test_a_finished_parent_with_a_lease_says_so_itself() -> None:
    plan = planned([lease("p", "SHARD_END", "t"), lease("c", "TRIM_HORIZON", "p")], LINEAGE)
    assert (shown(plan), plan.notes) == ({"p": "done", "c": "waiting", "t": "done"}, ())
    made = rows(plan)
    assert may_start(made["c"], made)


def test_a_child_that_was_not_begun_waits_for_its_parent() -> None:
    plan = planned([lease("p", "250", "t"), lease("c", "TRIM_HORIZON", "p")], LINEAGE)
    assert shown(plan) == {"p": "open 250", "c": "waiting", "t": "done"}
    made = rows(plan)
    assert not may_start(made["c"], made)


def test_one_begun_child_is_enough() -> None:
    """A split: its parent was finished when the first child was begun."""
    listed = [shard("p"), shard("c", "p", last=None), shard("d", "p", last=None)]
    plan = planned([lease("c", "150", "p"), lease("d", "TRIM_HORIZON", "p")], listed)
    assert shown(plan) == {"c": "open 150", "d": "waiting", "p": "done"}
    made = rows(plan)
    assert may_start(made["d"], made)


def test_both_parents_of_a_merge() -> None:
    listed = [shard("a"), shard("b"), shard("m", "a", "b", first=200, last=None)]
    plan = planned([lease("m", "250", "a", "b")], listed, source=KINESIS)
    assert shown(plan) == {"a": "done", "b": "done", "m": f"open {book_number('250')}"}
    plan = planned([lease("a", "SHARD_END"), lease("m", "TRIM_HORIZON", "a", "b")], listed, source=KINESIS)
    assert shown(plan) == {"a": "done", "m": "waiting"}
    assert plan.discovered == ("b",), "nothing says that it was finished"


def test_new_shards_are_left_to_discovery_in_their_order() -> None:
    """Children that the KCL had not leased yet, and a lineage that it never saw."""
    listed = [*LINEAGE, shard("n", "c", first=400, last=None), shard("x", last=None)]
    plan = planned([lease("p", "SHARD_END", "t"), lease("c", "350", "p")], listed)
    assert plan.discovered == ("n", "x")
    made = rows(plan)
    new = {one.shard_id: LeaseRow(one.shard_id, one.parents) for one in missing_leases(listed, made)}
    assert new.keys() == {"n", "x"}
    assert not may_start(new["n"], made | new)


def test_the_listing_knows_the_parents_better() -> None:
    """The KCL's row may name none, or in any order."""
    plan = planned([lease("c", "350")], LINEAGE)
    assert rows(plan)["c"].parents == ("p",)


def test_an_unfinished_parent_of_a_begun_child_is_written_first() -> None:
    """The KCL never does that; but if its row were missing, its child would say that it was finished."""
    leases = [lease("c", "350", "p"), lease("p", "250", "t"), lease("x", "150")]
    plan = planned(leases, [*LINEAGE, shard("x")])
    assert shown(plan) == {"c": "open 350", "p": "open 250", "t": "done", "x": "open 150"}
    assert [one.row.shard_id for one in plan.rows[: plan.first]] == ["p"]
    assert "p: not finished, although a child was begun" in plan.notes[0]


CHECKPOINTS = ("SHARD_END", "TRIM_HORIZON", "number", None)


@pytest.mark.parametrize("states", list(itertools.product(CHECKPOINTS, repeat=3)))
def test_a_half_written_import_never_takes_a_record_for_processed(states: tuple[str | None, ...]) -> None:
    """Any lineage, and any part of the rows that may have been written: what the others become then by discovery, as
    the daemon would do it, is never further than what the KCL has processed."""
    starts = {"t": 100, "p": 200, "c": 300}
    leases = [
        lease(i, str(starts[i] + 50) if state == "number" else state, *one.parents)
        for (i, state), one in zip(zip("tpc", states, strict=True), LINEAGE, strict=True)
        if state is not None
    ]
    listed = [*LINEAGE[:2], shard("c", "p", first=300)]  # closed, so that it may have ended
    plan = planned(leases, listed)
    if not leases:
        assert plan.rows == ()
        return
    first, rest = plan.rows[: plan.first], plan.rows[plan.first :]
    parts = [first[:count] for count in range(len(first))]
    parts += [(*first, *some) for count in range(len(rest) + 1) for some in itertools.combinations(rest, count)]
    parents = {one.shard_id: one.parents for one in listed}
    for part in parts:
        known = {one.row.shard_id: one.row for one in part}
        for _ in listed:  # one listing after the other
            settled = settled_before(known.values())
            known |= {i: LeaseRow(i, parents[i], state="done") for i in settled & starts.keys() - known.keys()}
        for one in leases:
            if one.checkpoint != "SHARD_END":
                found = known.get(one.shard_id)
                assert found is None or found.state != "done", f"{[one.row.shard_id for one in part]} of {shown(plan)}"
