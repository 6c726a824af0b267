"""Every request that the SDK of this process sends, as IAM sees it: action, resource and leading keys.

    with recorded() as asks:
        ...  # whatever uses consumer.aws

It looks at the requests as they leave, so it trusts no name that the code under test gives its calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import parse_qs, unquote, urlsplit

from aiobotocore.httpsession import AIOHTTPSession

_SCOPE = re.compile(r"Credential=(?P<account>\d{12})/\d{8}/(?P<region>[a-z0-9-]+)/")
_TRANSACTION = {
    "ConditionCheck": "ConditionCheckItem",
    "Delete": "DeleteItem",
    "Put": "PutItem",
    "Update": "UpdateItem",
}
_SQS_ACTIONS = {
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility"
}  # batches have the permission of the single call


class Ask(NamedTuple):
    """One permission that a request needs. ``operation`` is the name that the API gives the request."""

    action: str
    resource: str
    operation: str
    leading_keys: frozenset[str] = frozenset()


@contextmanager
def recorded() -> Iterator[list[Ask]]:
    """The access key has to be the account, twelve digits, as the embedded AWS reads it."""
    asks: list[Ask] = []
    iterators: dict[str, str] = {}  # resource by service: GetRecords names only its iterator
    send = AIOHTTPSession.send

    async def sent(session: Any, request: Any) -> Any:
        asks.extend(asked(request, iterators))
        return await send(session, request)

    with patch.object(AIOHTTPSession, "send", sent):
        yield asks


def asked(request: Any, iterators: dict[str, str]) -> list[Ask]:
    """What a prepared request needs."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    scope = _SCOPE.search(headers["authorization"])
    assert scope, "the access key is not an account"
    target = headers.get("x-amz-target")
    body = _text(request.body or b"")
    if target is None:
        return _sns(body) if "Action=" in body else _s3(request.method, urlsplit(request.url))
    service, _, operation = target.partition(".")
    place = f"{scope['region']}:{scope['account']}"
    content: dict[str, Any] = json.loads(body)
    if service == "DynamoDB_20120810":
        return _dynamodb(operation, content, place)
    if service == "AmazonSQS":
        name = content.get("QueueName") or content["QueueUrl"].rpartition("/")[2]
        return [Ask(f"sqs:{_SQS_ACTIONS.get(operation, operation)}", f"arn:aws:sqs:{place}:{name}", operation)]
    prefix = {"DynamoDBStreams_20120810": "dynamodb", "Kinesis_20131202": "kinesis"}[service]
    resource = content.get("StreamArn") or content.get("StreamARN") or iterators.get(prefix, "")
    if "StreamName" in content:
        resource = f"arn:aws:kinesis:{place}:stream/{content['StreamName']}"
    if operation == "GetShardIterator":
        iterators[prefix] = resource
    return [Ask(f"{prefix}:{operation}", resource, operation)]


def _dynamodb(operation: str, content: dict[str, Any], place: str) -> list[Ask]:
    if operation == "TransactWriteItems":
        parts = [(_TRANSACTION[kind], part) for entry in content["TransactItems"] for kind, part in entry.items()]
    else:
        parts = [(operation, content)]
    return [
        Ask(f"dynamodb:{name}", f"arn:aws:dynamodb:{place}:table/{part['TableName']}", operation, _leading_keys(part))
        for name, part in parts
    ]


def _leading_keys(part: dict[str, Any]) -> frozenset[str]:
    """The partition key of an item, or of a query that asks for one."""
    named = part.get("Key") or part.get("Item")
    if named is not None:
        return frozenset({named["pk"]["S"]}) if "pk" in named else frozenset()
    if str(part.get("KeyConditionExpression", "")).startswith("pk = :pk"):
        return frozenset({part["ExpressionAttributeValues"][":pk"]["S"]})
    return frozenset()


def _sns(body: str) -> list[Ask]:
    fields = {name: values[0] for name, values in parse_qs(body).items()}
    return [Ask(f"sns:{fields['Action']}", fields["TopicArn"], fields["Action"])]


def _s3(method: str, url: Any) -> list[Ask]:
    bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
    if key:
        action = {"HEAD": "GetObject", "GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}[method]
        return [Ask(f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}", "HeadObject" if method == "HEAD" else action)]
    operation = {"HEAD": "HeadBucket", "GET": "ListObjectsV2"}[method]
    return [Ask("s3:ListBucket", f"arn:aws:s3:::{bucket}", operation)]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
