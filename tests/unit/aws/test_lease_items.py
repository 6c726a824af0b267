"""Rows to items and back, and what is said about items that are not ours."""

from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumer.aws import lease_items as items
from consumer.aws import meta_items
from consumer.aws.table_rows import TABLE_KEYS, expressions, table_problem
from consumer.domain.deferred import BEGINNING, DeferredKey, digest_of
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, LeaseState, SessionRow
from consumer.ports.leases import Loss, Registration

numbers = st.integers(0, 10**40 - 1).map(lambda n: f"{n:021}")
runs = st.lists(st.tuples(numbers, numbers).map(lambda pair: tuple(sorted(pair, key=int))), max_size=5).map(tuple)
deferred_keys = st.lists(
    st.builds(
        DeferredKey,
        digest=st.binary(max_size=20).map(digest_of),
        number=st.just(BEGINNING) | numbers,
        passed=st.booleans(),
        since=st.integers(0, 4_000_000_000).map(float),
    ),
    max_size=3,
).map(tuple)
frontiers = st.builds(FrontierSnapshot, st.none() | numbers, st.none() | numbers, runs, deferred_keys)
leases = st.builds(
    LeaseRow,
    shard_id=st.text("abc-#0", min_size=1),
    parents=st.lists(st.text("abc"), max_size=2).map(tuple),
    owner=st.none() | st.text("abc/", min_size=1),
    epoch=st.integers(0, 10**9),
    state=st.sampled_from(get_args(LeaseState)),
    frontier=frontiers,
    starting_sequence_number=st.none() | numbers,
    note=st.text(max_size=50),
)


@given(leases)
def test_a_lease_survives_the_round_trip(row):
    assert items.lease_row(items.lease_item("app#label", row)) == row


@example({"epoch": {"N": "1E+40"}})
@given(
    st.dictionaries(
        st.sampled_from(["low", "first", "runs", "deferred", "state", "epoch", "owner", "parents", "note"]),
        st.one_of(
            st.builds(lambda v: {"S": v}, st.text(max_size=5)),
            st.builds(lambda v: {"N": v}, st.sampled_from(["1", "-1", "1.5", "1E+40", "x"])),
            st.builds(
                lambda v: {"L": v},
                st.lists(st.sampled_from([{"S": "1-2"}, {"S": "a=1@0"}, {"N": "1"}, {"M": {}}]), max_size=2),
            ),
            st.just({"NULL": True}),
            st.just({"BOOL": False}),
        ),
    )
)
def test_reading_never_raises_and_never_invents_a_start(damage):
    item = items.lease_item("app#label", LeaseRow("s", frontier=FrontierSnapshot("5", "5"), state="open")) | damage
    row = items.lease_row(item)
    assert row.shard_id == "s"
    if not row.corrupt:  # then everything is what the item says, nothing a default
        assert (row.frontier.low, row.frontier.first) == (item["low"]["S"], item["first"]["S"])
        assert len(row.frontier.deferred) == len(item.get("deferred", {"L": []})["L"])
        assert (row.state, row.epoch) == (item["state"]["S"], int(Decimal(item["epoch"]["N"])))


def test_every_run_is_stored():
    """The frontier decides how many runs are worth storing; the codec forgets none."""
    many = tuple((f"{n:040}", f"{n + 1:040}") for n in range(0, 6000, 3))
    row = LeaseRow("s", frontier=FrontierSnapshot("1", "1", many))
    assert items.lease_row(items.lease_item("app#label", row)).frontier.runs == many


@pytest.mark.parametrize("since", [-1.0, -1e300, 1e300, 5e-324])
def test_a_time_that_no_record_can_have_is_no_reason_to_refuse_the_row(since):
    """The creation time is what an odd record says."""
    frontier = FrontierSnapshot("9", "1", deferred=(DeferredKey("a", "2", since=since),))
    row = items.lease_row(items.lease_item("pk", LeaseRow("s", state="open", frontier=frontier)))
    assert not row.corrupt
    assert row.frontier.deferred == (DeferredKey("a", "2"),)


def test_deferred_keys_are_short_and_readable_by_an_operator():
    """A key from a number on, or after it, and since when; one entry takes less than 80 bytes at 40 digits."""
    keys = (DeferredKey("abc_-9", "12", since=1_700_000_000.0), DeferredKey("d", "9" * 40, passed=True))
    assert items.encode_deferred(keys) == ("abc_-9=12@1700000000", f"d>{'9' * 40}@0")
    longest = DeferredKey(digest_of(b""), "9" * 40, passed=True, since=4e9)
    assert len(items.encode_deferred((longest,))[0]) < 80


@pytest.mark.parametrize(
    "entry",
    [
        *("", "a", "a=", "a=1", "=1@0", "a=1@", "a=-1@0", "a=x@0", "a~1@0", "a=1@0.5", "a=1@0 ", "a b=1@0", "a=1@0@0"),
        *(f"a={'9' * 130}@0", "a=\u0661@0", {"N": "1"}),
    ],
    ids=repr,
)
def test_a_deferred_key_that_does_not_parse_makes_the_row_corrupt(entry):
    """Without it low would pass its records; with a guess they would come twice, or a part of them never."""
    held = LeaseRow("s", state="open", frontier=FrontierSnapshot("9", "1", deferred=(DeferredKey("a", "2"),)))
    item = items.lease_item("app#label", held)
    assert item["deferred"] == {"L": [{"S": "a=2@0"}]}
    item["deferred"] = {"L": [{"S": "b=3@0"}, entry if isinstance(entry, dict) else {"S": entry}]}
    row = items.lease_row(item)
    assert "deferred" in row.corrupt
    assert row.frontier == FrontierSnapshot()
    assert "deferred" not in items.progress(row), "it is evidence"


def test_a_corrupt_row_does_not_write_its_frontier():
    assert "low" not in items.progress(LeaseRow("s", corrupt="x"))
    assert items.progress(LeaseRow("s"))["low"] is None
    assert items.progress(LeaseRow("s"))["deferred"] is None


def test_sessions_and_registrations_survive_the_round_trip():
    session = SessionRow("host/1/u", 7, True, 3, True, 5, 1_700_000_000.5)
    assert items.session_row(items.session_item("app#sessions", session)) == session
    for registration in (Registration("arn", None), Registration("arn", 1_700_000_000.25, frozenset({"a", "b"}))):
        assert meta_items.registration(meta_items.registration_item("app#l", registration)) == registration


def test_a_loss_is_one_row_for_each_start_and_readable_by_an_operator():
    gap = items.loss_item("app#l", Loss("gap", "s#1", None, "9", "trimmed", 5.5))
    assert (gap["pk"]["S"], gap["sk"]["S"]) == ("app#l", "gap#s#1#5.500000")
    assert (gap["shard_id"], gap["last"], gap["reason"]) == ({"S": "s#1"}, {"S": "9"}, {"S": "trimmed"})
    assert "first" not in gap
    discarded = items.loss_item("app#l", Loss("discarded", "s", "1", "2", "", 1.0))
    assert (discarded["sk"]["S"], discarded["detected_at"]["N"]) == ("discarded#s#1", "1.000000")


@pytest.mark.parametrize(("version", "what"), [("99", "upgrade it"), ("1", "older than")])
def test_a_registration_of_another_version_is_refused(version, what):
    item = meta_items.registration_item("app#l", Registration("arn", None)) | {"schema_version": {"N": version}}
    with pytest.raises(MisconfiguredResource, match=what):
        meta_items.registration(item)


def test_every_lease_and_session_row_says_its_version_and_a_newer_one_is_nobodys_to_judge():
    """A newer program may have come later than this one was started."""
    newer = {items.VERSION: {"N": str(items.SCHEMA_VERSION + 1)}}
    lease = items.lease_item("app#label", LeaseRow("s", state="open"))
    session = items.session_item("app#sessions", SessionRow("a"))
    assert not items.lease_row(lease).corrupt
    assert items.session_row(session).readable
    assert "upgrade" in items.lease_row(lease | newer).corrupt
    assert not items.session_row(session | newer).readable


def test_a_global_table_is_a_problem():
    """It merges the writes of two regions, each of which has met its condition: two owners."""
    replicas = [{"RegionName": "eu-west-1", "ReplicaStatus": "ACTIVE"}]
    assert "global table with replicas in eu-west-1" in table_problem({**TABLE_KEYS, "Replicas": replicas})
    assert table_problem({**TABLE_KEYS, "Replicas": []}) == ""


@pytest.mark.parametrize("status", ["DELETING", "ARCHIVED", "INACCESSIBLE_ENCRYPTION_CREDENTIALS"])
def test_a_table_that_will_not_become_active_is_a_problem(status):
    assert status in table_problem({**TABLE_KEYS, "TableStatus": status})
    assert table_problem({**TABLE_KEYS, "TableStatus": "CREATING"}) == ""


def test_expressions_use_placeholders_for_every_name():
    made = expressions(
        [("pk", "present", None), ("owner", "=", {"S": "a"}), ("fenced", "absent", None)],
        {"state": {"S": "open"}, "low": None},
    )
    assert made["ConditionExpression"] == "attribute_exists(#pk) AND #owner = :v0 AND attribute_not_exists(#fenced)"
    assert made["UpdateExpression"] == "SET #state = :v1 REMOVE #low"
    assert set(made["ExpressionAttributeNames"]) == {"#pk", "#owner", "#fenced", "#state", "#low"}
