"""Reads of the lease table."""

from __future__ import annotations

from typing import Any

from consumer.aws.errors import ApiCaller
from consumer.aws.table_rows import TableRows


class Client:
    """Answers every query with two pages, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def get_item(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        return {}

    async def query(self, **request: Any) -> dict[str, Any]:
        self.asked.append(dict(request))
        more = "ExclusiveStartKey" not in request
        return {"Items": [{"n": {"N": "1"}}], **({"LastEvaluatedKey": {"pk": {"S": "x"}}} if more else {})}


async def test_no_read_may_be_stale() -> None:
    """A stale session row looks dead, a stale lease row free: everything rests on consistent reads."""
    client = Client()
    rows = TableRows(client, ApiCaller(), table="leases", timeout=6.0)
    assert await rows.get("a", "b") is None
    assert len(await rows.query("a")) == 2
    assert len(await rows.query("a", "shard#")) == 2
    assert len(client.asked) == 5
    assert all(request["ConsistentRead"] is True for request in client.asked)
