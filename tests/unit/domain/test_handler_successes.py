"""When the handler last worked in another shard."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.handler_successes import HandlerSuccesses


@given(st.lists(st.sampled_from("abc")))
def test_it_is_what_an_account_of_everything_says(shards: list[str]) -> None:
    successes, account = HandlerSuccesses(), {}
    for now, shard_id in enumerate(shards):
        successes.note(shard_id, float(now))
        account[shard_id] = float(now)
    for shard_id in "abcd":
        others = [at for other, at in account.items() if other != shard_id]
        assert successes.elsewhere(shard_id) == max(others, default=-math.inf)
