"""What the summary says of a share, against a count of every key."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.heavy_hitters import COUNTERS, FEWEST, HALF_LIFE, HeavyHitters

ERROR = 1 / (COUNTERS + 1)


def keys_of(numbers: list[int]) -> list[bytes]:
    return [b"k%d" % number for number in numbers]


PAGES = st.lists(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 10_000)), min_size=1, max_size=200), min_size=1, max_size=40
)


@given(PAGES)
def test_a_share_is_never_too_large_and_hardly_too_small(pages: list[list[int]]) -> None:
    summary, truth = HeavyHitters(), Counter[bytes]()
    for page in pages:
        summary.add(keys_of(page), len(page))
        truth.update(keys_of(page))
    total = truth.total()
    found = summary.hottest(0.0)
    most = truth.most_common(1)[0][1] / total
    if total < FEWEST:
        assert found is None
    elif found is None:
        assert most <= ERROR
    else:
        key, share = found
        assert most - ERROR <= share <= truth[key] / total


@given(PAGES)
def test_however_many_keys_come_few_are_held(pages: list[list[int]]) -> None:
    summary = HeavyHitters()
    for page in pages:
        summary.add(keys_of(page), len(page))
        assert len(summary._held) <= 2 * COUNTERS


def test_keys_that_never_come_again_hide_no_hot_one() -> None:
    summary = HeavyHitters()
    for page in range(200):
        keys = [b"hot" if n % 5 == 0 else b"%d-%d" % (page, n) for n in range(1000)]
        summary.add(keys, len(keys))
    key, share = summary.hottest(0.0) or (b"", 0.0)
    assert key == b"hot"
    assert 0.2 - ERROR <= share <= 0.2


def test_what_was_hot_is_forgotten() -> None:
    summary = HeavyHitters()
    assert summary.hottest(0.0) is None
    summary.add([b"before"] * 1000, 1000)
    assert summary.hottest(1.0) == (b"before", 1.0)
    now = 1.0
    for _ in range(10):
        now += HALF_LIFE
        summary.add([b"after"] * 500 + keys_of(list(range(500))), 1000)
        found = summary.hottest(now)
    assert found is not None
    assert found[0] == b"after"
    assert found[1] == pytest.approx(0.5, abs=ERROR)


def test_an_idle_shard_has_no_hot_key() -> None:
    summary = HeavyHitters()
    summary.hottest(0.0)
    summary.add([b"k"] * (FEWEST - 1), FEWEST - 1)
    assert summary.hottest(0.0) is None, "a share of hardly any records would raise alarms"
    summary.add([b"k"], 1)
    assert summary.hottest(0.0) == (b"k", 1.0)
    assert summary.hottest(HALF_LIFE - 0.1) == (b"k", 1.0)
    assert summary.hottest(HALF_LIFE) is None
    assert summary.hottest(1e9) is None
    assert summary._held == {}
