"""Which service a mapping reads, from its ARN, from the resource it refers to, or from options that only one has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from consumer.cli.lambda_import.found import DYNAMODB, KINESIS
from consumer.cli.lambda_import.intrinsics import Unresolved

NO_FAN_OUT: Final = (
    "enhanced fan-out is not offered; the shards are polled, and share five reads and 2 MB a second with the other "
    "readers of the stream"
)
_SERVICES = {
    "dynamodb": DYNAMODB, "sqs": "SQS", "kinesis": KINESIS, "kafka": "Kafka", "mq": "MQ", "rds": "DocumentDB",
}  # fmt: skip
_RESOURCES = (
    (r"AWS::DynamoDB::.*|AWS::Serverless::SimpleTable|aws_dynamodb_.*", DYNAMODB),
    (r"AWS::SQS::.*|aws_sqs_.*", "SQS"),
    (r"AWS::Kinesis::.*|aws_kinesis_.*", KINESIS),
    (r"AWS::MSK::.*|aws_msk.*", "Kafka"),
    (r"AWS::AmazonMQ::.*|aws_mq_.*", "MQ"),
    (r"AWS::DocDB::.*|aws_docdb_.*", "DocumentDB"),
)
_OPTIONS = {
    "SelfManagedEventSource": "Kafka",
    "SelfManagedKafkaEventSourceConfig": "Kafka",
    "AmazonManagedKafkaEventSourceConfig": "Kafka",
    "Topics": "Kafka",
    "Queues": "MQ",
    "DocumentDBEventSourceConfig": "DocumentDB",
    "ScalingConfig": "SQS",
}
_SERVICE = re.compile(r"arn:[^:]*:([a-z0-9-]+):")


def source_kind(properties: Mapping[Any, Any], type_of: Callable[[str], str] = lambda _name: "") -> str:
    """`DynamoDB`, `SQS`, ...; `DynamoDB` as well where nothing tells, for the stream is then asked for.

    Args:
        properties: the options of the mapping, resolved.
        type_of: the type of the resource of a name; empty when there is none.
    """
    arn = properties.get("EventSourceArn") or properties.get("Stream")
    text = arn.text if isinstance(arn, Unresolved) else str(arn or "")
    service = _SERVICE.match(text)
    if service:
        return _SERVICES.get(service[1], service[1])
    if isinstance(arn, Unresolved):
        kinds = {kind for name in arn.resources for kind in _kinds(type_of(name))}
        if len(kinds) == 1:
            return kinds.pop()
        if re.search(r"stream_?arn\}", text, re.IGNORECASE):
            return DYNAMODB
    for option, kind in _OPTIONS.items():
        if properties.get(option):
            return kind
    # a stream needs a position and a queue has none, so the API refuses a mapping that lacks it for a stream
    return "SQS" if isinstance(arn, Unresolved) and "StartingPosition" not in properties else DYNAMODB


def _kinds(resource_type: str) -> list[str]:
    return [kind for pattern, kind in _RESOURCES if re.fullmatch(pattern, resource_type)]
