"""Rows of one table with keys ``pk`` and ``sk``: conditional writes that are safe to repeat, and consistent reads.

A time-out says nothing about whether a write was applied. So every write is conditional on what it keeps or on what
only its own success can have changed, is sent again when no answer came, and says when a refusal may be its own echo.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from consumer.aws.answers import has
from consumer.aws.errors import ApiCaller, ConditionFailed, TransactionConflict, Unanswered
from consumer.domain.errors import DependencyError, MisconfiguredResource, ResourceMissing

Item = Mapping[str, Any]
AttributeMap = dict[str, dict[str, Any]]
Changes = Mapping[str, dict[str, Any] | None]  # None removes the attribute
# attribute; "present", "absent", an operator or "absent or" and an operator; value
Clause = tuple[str, str, dict[str, Any] | None]

ATTEMPTS: Final = 3  # of one write within its time-out, when no answer comes
PAUSE: Final = 0.05  # seconds before the second attempt, doubled before the third
CONFLICTS: Final = 8  # after which a write is given up: others are writing to the same rows, and answers come at once
ACTIVE_DEADLINE: Final = 120.0  # seconds for a table that is being created or updated
ACTIVE_POLL: Final = 0.5  # seconds between looks at it
_NEVER_WRITTEN: Final = "rehearsal"  # sort key of a row that never exists

HOW_TO_CREATE: Final = "create it with `stream-consumer init --config FILE`, or set leases.create_table: true"

PRESENT: Final[Clause] = ("pk", "present", None)
NEW: Final[Clause] = ("pk", "absent", None)
NOT_FENCED: Final[Clause] = ("fenced", "absent", None)  # of a session
TABLE_KEYS: Final = {
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
}


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a conditional write. ``found`` is the row that refused it; ``doubtful``: an earlier attempt of the
    same write got no answer, so a refusal may be the echo of its success."""

    attributes: Item
    refused: bool = False
    found: Item | None = None
    doubtful: bool = False


class TableRows:
    """Reads and writes of one table.

    Args:
        client: a dynamodb client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        table: its name.
        timeout: seconds for one operation including its repetitions.
    """

    def __init__(self, client: Any, caller: ApiCaller, *, table: str, timeout: float) -> None:
        self._client = client
        self._caller = caller
        self._table = table
        self._resource = f"lease table {table}"
        self._timeout = timeout / ATTEMPTS
        self.table_id = ""  # of this very table, not of one that had its name before; known once it is prepared
        self.created_at = 0.0  # Unix seconds by the service's clock

    async def prepare(self, *, create: bool) -> bool:
        """Check the table, create it when allowed and missing, wait until it is active; True when created here.

        Raises:
            ResourceMissing: there is no such table and it may not be created.
            MisconfiguredResource: its keys are not ``pk`` and ``sk`` (strings), or it cannot become active.
        """
        created = create and await self._create_if_missing()
        deadline = time.monotonic() + ACTIVE_DEADLINE
        while not await self._active(created):
            if time.monotonic() > deadline:
                raise DependencyError("DescribeTable", "NotActive", f"{self._resource} did not become active")
            await asyncio.sleep(ACTIVE_POLL)
        return created

    async def _create_if_missing(self) -> bool:
        try:
            await self._describe()
            return False
        except ResourceMissing:
            pass
        # Without its leases the application starts again from source.starting_position.
        protected = {"BillingMode": "PAY_PER_REQUEST", "DeletionProtectionEnabled": True}
        request = {"TableName": self._table, **protected, **TABLE_KEYS}
        try:
            await self._caller.call("CreateTable", self._resource, self._client.create_table(**request))
        except DependencyError as error:
            if error.code != "ResourceInUseException":  # otherwise another worker was faster: just as good
                raise
            return False
        return True

    async def _active(self, created: bool) -> bool:
        try:
            table = await self._describe()
        except ResourceMissing as error:
            if created:
                return False  # DescribeTable is eventually consistent
            raise ResourceMissing(self._resource, HOW_TO_CREATE) from error
        problem = table_problem(table)
        if problem:
            raise MisconfiguredResource(f"{self._resource}: {problem}")
        made_at = table.get("CreationDateTime")
        if isinstance(made_at, datetime):
            self.table_id, self.created_at = str(table.get("TableId") or ""), made_at.timestamp()
        return bool(table.get("TableStatus", "ACTIVE") == "ACTIVE")

    async def _describe(self) -> dict[str, Any]:
        call = self._client.describe_table(TableName=self._table)
        table: dict[str, Any] = (await self._caller.call("DescribeTable", self._resource, call))["Table"]
        return table

    async def put_new(self, item: AttributeMap) -> Written:
        """Create a row that must not be there yet."""
        return await self._write("PutItem", {"Item": item, **expressions([NEW])})

    async def update(
        self,
        pk: str,
        sk: str,
        changes: Changes,
        where: Iterable[Clause],
        *,
        added: Changes | None = None,
        answer: str = "NONE",
    ) -> Written:
        """Change a row, if it is as ``where`` says. Numbers ``added`` count twice when an answer is lost."""
        request = {"Key": key(pk, sk), "ReturnValues": answer, **expressions(where, changes, added)}
        return await self._write("UpdateItem", request)

    async def delete(self, pk: str, sk: str, where: Iterable[Clause] = ()) -> Written:
        """Delete a row, if it is as ``where`` says."""
        condition = expressions(where) if where else {}
        return await self._write("DeleteItem", {"Key": key(pk, sk), **condition})

    async def transact(self, parts: Iterable[dict[str, dict[str, Any]]]) -> Written:
        """All of at most 100 writes, or none when one of them is refused: ``found`` is one of the rows that did."""
        named = [{kind: part | {"TableName": self._table} for kind, part in entry.items()} for entry in parts]
        return await self._write("TransactWriteItems", {"TransactItems": named})

    async def rehearse(self, operation: str, pk: str) -> None:
        """Ask whether a write is permitted, and change nothing: permissions are decided before conditions, and this one
        asks for a row that never exists. ``operation`` is one of WRITES; PermissionDenied when it is not allowed."""
        place, there = key(pk, _NEVER_WRITTEN), expressions([PRESENT])
        check = {"TableName": self._table, "Key": place, **there}
        requests: dict[str, dict[str, Any]] = {
            "PutItem": {"Item": place, **there},
            "UpdateItem": {"Key": place, **there},
            "DeleteItem": {"Key": place, **there},
            "TransactWriteItems": {"TransactItems": [{"ConditionCheck": check}]},
        }
        await self._write(operation, requests[operation])

    async def _write(self, operation: str, request: dict[str, Any]) -> Written:
        """Send a write; send it again when no answer came or another request was in the way."""
        method = getattr(self._client, _METHODS[operation])
        if operation != "TransactWriteItems":
            request = {"TableName": self._table, **request}
        check = has("Attributes", dict) if request.get("ReturnValues", "NONE") != "NONE" else None
        unanswered = conflicts = 0
        while True:
            try:
                sending = method(**request)
                answer = await self._caller.call(operation, self._resource, sending, self._timeout, check=check)
                return Written(answer.get("Attributes") or {})
            except ConditionFailed as refusal:
                return Written({}, refused=True, found=refusal.item, doubtful=unanswered > 0)
            except Unanswered:
                unanswered += 1
                if unanswered == ATTEMPTS:
                    raise
                pause = PAUSE * unanswered
            except TransactionConflict:
                conflicts += 1
                if conflicts == CONFLICTS:
                    raise
                jitter = random.random()  # noqa: S311 - those that met must not meet again
                pause = PAUSE * conflicts * jitter
            await asyncio.sleep(pause)

    async def get(self, pk: str, sk: str) -> Item | None:
        return (await self.get_with_time(pk, sk))[0]

    async def get_with_time(self, pk: str, sk: str) -> tuple[Item | None, float | None]:
        """A row, and the time there: Unix seconds by the service's own clock, None when its answer has no date."""
        reading = self._client.get_item(TableName=self._table, Key=key(pk, sk), ConsistentRead=True)
        answer = await self._caller.call("GetItem", self._resource, reading, self._timeout)
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
        try:
            service_time = parsedate_to_datetime(date).timestamp()
        except (ValueError, TypeError, OverflowError):
            service_time = None
        return answer.get("Item") or None, service_time

    async def query(self, pk: str, prefix: str = "") -> list[Item]:
        """All rows of a partition, every page: half a list of leases would look like deleted ones."""
        which = ("begins_with(sk, :prefix)", {":prefix": {"S": prefix}}) if prefix else ("", {})
        return await self._query(pk, *which)

    async def query_between(self, pk: str, first: str, last: str) -> list[Item]:
        """The rows of a partition from one sort key to another one, every page."""
        return await self._query(pk, "sk BETWEEN :first AND :last", {":first": {"S": first}, ":last": {"S": last}})

    async def _query(self, pk: str, which: str, values: AttributeMap) -> list[Item]:
        request: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "pk = :pk" + (f" AND {which}" if which else ""),
            "ExpressionAttributeValues": {":pk": {"S": pk}, **values},
        }
        found: list[Item] = []
        while True:
            answer = await self._caller.call("Query", self._resource, self._client.query(**request), self._timeout)
            found.extend(answer.get("Items", ()))
            if not answer.get("LastEvaluatedKey"):
                return found
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


_METHODS: Final = {
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "TransactWriteItems": "transact_write_items",
}
WRITES: Final = tuple(_METHODS)


def key(pk: str, sk: str) -> AttributeMap:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def table_problem(table: Mapping[str, Any]) -> str:
    """Why a described table cannot hold leases; empty when it can."""
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in table.get("AttributeDefinitions", ())}
    keys = [(k["KeyType"], k["AttributeName"], types.get(k["AttributeName"])) for k in table.get("KeySchema", ())]
    if sorted(keys) != [("HASH", "pk", "S"), ("RANGE", "sk", "S")]:
        found = ", ".join(f"{name} {kind} ({of})" for kind, name, of in keys) or "none"
        return f"its keys must be pk HASH (S), sk RANGE (S), found {found}: choose another leases.table"
    replicas = [str(replica.get("RegionName")) for replica in table.get("Replicas") or ()]
    if replicas:
        where = f"with replicas in {', '.join(replicas)}"
        return f"it is a global table {where}, which merges the writes of two regions: choose a table of one region"
    status = table.get("TableStatus", "ACTIVE")
    return "" if status in ("ACTIVE", "CREATING", "UPDATING") else f"its status is {status}"


def expressions(
    where: Iterable[Clause], changes: Changes | None = None, added: Changes | None = None
) -> dict[str, Any]:
    """The expression parameters of a conditional write. Every name goes by a placeholder: owner, state and counter
    are reserved words."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}

    def name(attribute: str) -> str:
        names[f"#{attribute}"] = attribute
        return f"#{attribute}"

    def value(content: dict[str, Any]) -> str:
        values[f":v{len(values)}"] = content
        return f":v{len(values) - 1}"

    conditions = []
    for attribute, test, content in where:
        if content is None:
            function = "attribute_exists" if test == "present" else "attribute_not_exists"
            conditions.append(f"{function}({name(attribute)})")
        elif test.startswith("absent or "):
            holds = f"{name(attribute)} {test.removeprefix('absent or ')} {value(content)}"
            conditions.append(f"(attribute_not_exists({name(attribute)}) OR {holds})")
        else:
            conditions.append(f"{name(attribute)} {test} {value(content)}")
    parameters: dict[str, Any] = {
        "ConditionExpression": " AND ".join(conditions),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    if changes or added:
        changes = changes or {}
        sets = [f"{name(attribute)} = {value(new)}" for attribute, new in changes.items() if new is not None]
        removed = [name(attribute) for attribute, new in changes.items() if new is None]
        adds = [f"{name(attribute)} {value(more)}" for attribute, more in (added or {}).items() if more is not None]
        parts = {"SET": sets, "REMOVE": removed, "ADD": adds}
        parameters["UpdateExpression"] = " ".join(
            f"{verb} {', '.join(found)}" for verb, found in parts.items() if found
        )
    parameters["ExpressionAttributeNames"] = names
    if values:
        parameters["ExpressionAttributeValues"] = values
    return parameters
