"""Something in between answers with status 200: a login page, an empty object, half a body. None of it is believed."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import LEASE_SECONDS, Fleet, duplicates, out_of_order, wait_until
from tests.e2e.hurt import all_is_written, wait_owned
from tests.e2e.test_fleet import share_evenly, stale_starts
from tests.support.reshard_proxy import ProxyThread

SHARDS = 2
PORTAL: dict[str, Any] = {"kind": "reply", "status": 200, "body": "<html>Please sign in</html>"}
EMPTY: dict[str, Any] = {**PORTAL, "body": "{}", "content_type": "application/x-amz-json-1.0"}
NOT_FOUND: dict[str, Any] = {**PORTAL, "status": 404}
pytestmark = pytest.mark.behind_proxy(shards=SHARDS)


def test_no_letter_page_or_checkpoint_is_taken_for_what_it_is_not(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    url, fleet.queue_arn = aws.queue()
    worker = fleet.start("w1")
    wait_owned(worker, SHARDS)
    for fault in (PORTAL, EMPTY, {"kind": "truncate"}, NOT_FOUND):
        proxy.call("fault", "SendMessage", **fault)
    for fault in (EMPTY, {**EMPTY, "body": '{"Records":[]}'}, PORTAL, NOT_FOUND):
        proxy.call("fault", "GetRecords", **fault)
    for fault in ({**PORTAL, "applied": True}, EMPTY, NOT_FOUND):
        proxy.call("fault", "UpdateItem", **fault)
    poison = {f"bad{n}" for n in range(2)}
    for key in sorted(poison):
        aws.poison(fleet.table, key, 1)
    expected = aws.write(fleet.table, 20, range(1, 6))
    fleet.wait_for(expected)
    letters: list[dict[str, Any]] = []

    def all_arrived() -> bool:
        letters.extend(map(json.loads, aws.messages(url)))
        keys = [record["dynamodb"]["Keys"]["pk"]["S"] for one in letters for record in one["payload"]["Records"]]
        return set(keys) == poison

    wait_until(all_arrived, 30, "every letter")
    wait_until(lambda: all_is_written(worker), 20, "the frontier is written")
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0
    for operation, least in (("SendMessage", 4), ("GetRecords", 4), ("UpdateItem", 3)):
        counted = f'stream_consumer_api_calls_total{{operation="{operation}",outcome="strange"}}'
        assert worker.metric(counted) >= least, operation
    assert worker.metric("stream_consumer_gaps_total") == 0


@pytest.mark.parametrize("answer", [PORTAL, EMPTY], ids=["portal", "empty"])
def test_a_worker_behind_a_portal_does_not_believe_in_its_lease(aws: Aws, fleet: Fleet, answer: dict[str, Any]) -> None:
    """Its renewals are answered with 200 and not by the lease table: it starts nothing when its lease is over."""
    with ProxyThread(aws.endpoint) as lease_proxy:
        endpoints = {**fleet.config()["aws"]["endpoints"], "dynamodb": lease_proxy.endpoint}
        fleet.start("behind", aws={"endpoints": endpoints})
        other = fleet.start("other")
        share_evenly(fleet, SHARDS)
        fleet.wait_for(aws.write(fleet.table, 40, range(1, 3)))
        lease_proxy.call("fault", "*", times=1_000_000, **answer)
        wait_owned(other, SHARDS, 5 * LEASE_SECONDS)
        fleet.wait_for(aws.write(fleet.table, 40, range(3, 9)))
        assert {line[2] for line in fleet.journal() if line[1] >= 3} == {"other"}
        assert stale_starts(fleet.journal()) == 0
