"""Whether the handler worked in another shard of late."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from consumer.domain.breaker import FIRST_PAUSE
from consumer.domain.handler_successes import HandlerSuccesses


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 1.0, FIRST_PAUSE - 1, FIRST_PAUSE)))))
def test_it_is_what_an_account_of_everything_says(plan: list[tuple[str, float]]) -> None:
    successes, account, now = HandlerSuccesses(), {}, 1000.0
    for shard_id, later in plan:
        now += later
        successes.note(shard_id, now)
        account[shard_id] = now
        for asked in "abcd":
            latest = max((at for other, at in account.items() if other != asked), default=-math.inf)
            assert successes.elsewhere(asked, now) == (now - latest < FIRST_PAUSE)
