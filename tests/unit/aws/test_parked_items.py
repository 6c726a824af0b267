"""Rows of parked keys to items and back, and what is said about items that are not ours."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.aws import parked_items as items
from consumer.aws.table_rows import expressions
from consumer.domain.deferred import digest_of
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.parking import Parked, ParkedKey, ParkedShard, ParkedState

PK = "app#parked"
LABEL, SHARD = "2026-01-02T03:04:05.678", "shardId-00000001700000000000-abcdef01"
KEY = ParkedKey("digest", "p1", since=5.0, reason="why", label=LABEL, shard_id=SHARD, sequence_number="7")
ROW = ParkedShard("digest", LABEL, SHARD, "p1", first="7", letters=2, last="9", done=1, closed="n1")

digests = st.binary(max_size=20).map(digest_of)
numbers = st.integers(0, 10**129 - 1).map(str)
names = st.text("abc-0:/@.", min_size=1)
counts = st.integers(0, 10**12)


@st.composite
def keys(draw):
    state = draw(st.sampled_from(get_args(ParkedState)))
    return ParkedKey(
        digest=draw(digests),
        park_id=draw(names),
        state=state,
        since=draw(st.integers(0, 4 * 10**15)) / 10**6,
        reason=draw(st.text(max_size=30)),
        label=draw(names | st.just("")),
        shard_id=draw(names | st.just("")),
        sequence_number=draw(numbers | st.just("")),
        nonce=draw(names) if state == "closing" else "",
        redriver=draw(st.none() | names),
        claim=draw(counts),
    )


@st.composite
def shards(draw):
    letters = draw(counts)
    return ParkedShard(
        digest=draw(digests),
        label=draw(names),
        shard_id=draw(names | st.just("shard#with#separators")),
        park_id=draw(names),
        first=draw(numbers),
        letters=letters,
        last=draw(numbers) if letters else "",
        done=draw(counts),
        closed=draw(names | st.just("")),
    )


@given(keys())
def test_a_key_survives_the_round_trip(row):
    assert items.parked_key(items.key_item(PK, row)) == row


@given(shards())
def test_a_shard_row_survives_the_round_trip(row):
    assert items.parked_shard(items.shard_item(PK, row)) == row


@given(st.lists(digests, min_size=1, max_size=8, unique=True), st.data())
def test_the_rows_of_a_key_stand_together_and_its_own_comes_first(found, data):
    """Sort keys are compared by their bytes; a range of them is one key's, whatever other digests there are."""
    rows = [ParkedKey(digest, "p1") for digest in found]
    sks = {digest: [digest, *(f"{digest}#{LABEL}#{SHARD}-{n}" for n in range(2))] for digest in found}
    everything = sorted([items.CHANGES, *(sk for names in sks.values() for sk in names)], key=str.encode)
    assert everything == [items.CHANGES, *(sk for digest in sorted(found) for sk in sks[digest])]
    one = data.draw(st.sampled_from(found))
    first, last = items.between(one)
    assert [sk for sk in everything if first.encode() <= sk.encode() <= last.encode()] == sks[one]
    listed = items.parked_rows(items.key_item(PK, row) for row in data.draw(st.permutations(rows)))
    assert [parked.key.digest for parked in listed] == sorted(found)


def test_a_listing_leaves_out_the_number_of_changes_and_keeps_rows_without_a_key():
    left = items.shard_item(PK, ROW)
    counter = {"pk": {"S": PK}, "sk": {"S": items.CHANGES}, "changes": {"N": "7"}}
    assert items.parked_rows([counter, left]) == [Parked(None, (ROW,))]
    assert items.parked_rows([counter, items.key_item(PK, KEY), left]) == [Parked(KEY, (ROW,))]
    assert items.changes(counter) == 7


def test_a_long_reason_is_cut():
    row = items.parked_key(items.key_item(PK, ParkedKey("d", "p1", reason="x" * 5000)))
    assert row.reason == "x" * 1000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("v", {"N": "4"}, "schema version 4, this program knows 3: upgrade it"),
        ("state", {"S": "closed"}, "state is unknown: 'closed'"),
        ("state", {"N": "1"}, "state is not a string"),
        ("state", None, "state is missing"),
        ("state", {"S": "closing"}, "its state is closing, and it has no nonce"),
        ("nonce", {"S": "n1"}, "its state is parked, and it has a nonce"),
        ("park_id", None, "park_id is missing"),
        ("park_id", {"L": []}, "park_id is not a string"),
        ("since", {"S": "yesterday"}, "since is not a number"),
        ("claim", {"N": "1.5"}, "claim is not a count"),
        ("claim", None, "claim is not a number"),
        ("redriver", {"BOOL": True}, "redriver is not a string"),
        ("shards", {"S": "1"}, "shards is not a number"),
        ("shards", None, "shards is not a number"),
    ],
)
def test_a_damaged_key_is_never_guessed(name, value, said):
    item = {**items.key_item(PK, KEY), name: value}
    item = {name: value for name, value in item.items() if value is not None}
    (found,) = items.parked_rows([item])
    (damage,) = found.damaged
    assert (found.key, found.digest) == (None, "digest")
    assert f"the row pk={PK}, sk=digest of a parked key cannot be used: {said}" in damage.problem
    assert "do not delete it" in damage.problem
    assert found.is_unsure(LABEL, SHARD)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("v", {"N": "4"}, "schema version 4"),
        ("sk", {"S": f"digest#{LABEL}"}, "its sort key is not <digest>#<label>#<shard id>"),
        ("sk", {"S": f"digest##{SHARD}"}, "its sort key is not <digest>#<label>#<shard id>"),
        ("park_id", None, "park_id is missing"),
        ("first", None, "first is missing"),
        ("first", {"S": "rubbish"}, "first is not a sequence number"),
        ("last", {"N": "9"}, "last is not a string"),
        ("last", None, "it counts 2 letters, and the last of them is missing"),
        ("letters", {"N": "0"}, "it counts 0 letters, and the last of them is 9"),
        ("letters", {"N": "-1"}, "letters is not a count"),
        ("done", None, "done is not a number"),
        ("closed", {"N": "1"}, "closed is not a string"),
    ],
)
def test_a_damaged_shard_row_is_never_guessed(name, value, said):
    item = {**items.shard_item(PK, ROW), name: value}
    item = {name: value for name, value in item.items() if value is not None}
    (found,) = items.parked_rows([items.key_item(PK, KEY), item])
    (damage,) = found.damaged
    assert (found.key, found.shards) == (KEY, ())
    assert f"the row pk={PK}, sk={item['sk']['S']} of a parked key cannot be used: {said}" in damage.problem
    assert found.is_unsure(LABEL, SHARD)
    assert found.is_unsure(LABEL, "another") is (name == "sk"), "whoever it belongs to"


@pytest.mark.parametrize("damage", [{"S": "7"}, {"N": "7.5"}, {"N": "-1"}])
def test_a_damaged_number_of_changes_is_never_guessed(damage):
    with pytest.raises(MisconfiguredResource, match="changes is not a"):
        items.changes({"pk": {"S": PK}, "sk": {"S": items.CHANGES}, "changes": damage})


def test_every_condition_asks_for_a_row_of_a_version_that_is_known():
    """A program that is newer than this one may mean something else by it."""
    asked = (
        items.is_parked_as("p1"),
        items.is_parked(KEY),
        items.is_closing(KEY),
        items.is_claimed(KEY),
        items.is_claimed_and_closing(KEY),
        items.has_other_park_id(ROW),
        items.has_fewer_letters(ROW),
        items.is_done(ROW, "n1"),
    )
    for where in asked:
        said = expressions(where)
        assert "(attribute_not_exists(#v) OR #v < " in said["ConditionExpression"]
        assert {"N": "4"} in said["ExpressionAttributeValues"].values()
