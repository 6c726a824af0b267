"""The names of AWS resources that a configuration may hold; `require_*` return a good one and raise `Refused`.

Only the shape is judged. Partition, region and account are free text, because emulators use their own
(`arn:aws:dynamodb:ddblocal:000000000000:...`); whether the resource exists is for `check-config --aws`.
"""

from __future__ import annotations

import re

from consumer.settings.errors import Refused

TABLE_NAME = r"[a-zA-Z0-9_.-]{3,255}"
_ARN = re.compile(
    r"arn:(?P<partition>[a-zA-Z0-9-]+):(?P<service>[a-z0-9-]+):(?P<region>[a-zA-Z0-9-]*):(?P<account>[a-zA-Z0-9-]*):(?P<resource>.+)"
)
_TABLE = re.compile(r"table/[a-zA-Z0-9_.-]{1,255}")
_STREAM = re.compile(r"table/[a-zA-Z0-9_.-]{1,255}/stream/[0-9A-Za-z:.+-]+")
_KINESIS = re.compile(r"stream/[a-zA-Z0-9_.-]{1,128}(/consumer/[a-zA-Z0-9_.-]+:[0-9]+)?")
_QUEUE_OR_TOPIC = re.compile(r"[a-zA-Z0-9_-]{1,256}(\.fifo)?")
_S3_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s]*)?")
_REAL_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def _parts(text: str) -> tuple[str, str, str]:
    """Service, region and resource of an ARN; three empty strings when it is none."""
    match = _ARN.fullmatch(text)
    return (match["service"], match["region"], match["resource"]) if match else ("", "", "")


def require_table(text: str) -> str:
    """A table name or a table ARN."""
    service, _, resource = _parts(text)
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        raise Refused("must be a table name or table ARN, found a stream ARN", "use source.stream_arn")
    if (service == "dynamodb" and _TABLE.fullmatch(resource)) or re.fullmatch(TABLE_NAME, text):
        return text
    raise Refused("must be a table name (3 to 255 of a-z A-Z 0-9 _ . -) or a table ARN")


def require_stream_arn(text: str, kind: str) -> str:
    """The ARN of a DynamoDB stream (`kind` dynamodb) or of a Kinesis stream (`kind` kinesis)."""
    service, _, resource = _parts(text)
    if kind == "kinesis":
        if service != "kinesis" or not _KINESIS.fullmatch(resource):
            raise Refused("must be the ARN of a Kinesis stream")
        return text
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        return text
    message = "must be a DynamoDB stream ARN, arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/TIME"
    if service == "dynamodb" and _TABLE.fullmatch(resource):
        raise Refused(message, "this is a table ARN; use source.table, which finds the latest stream")
    if service == "dynamodb" and "/index/" in resource:
        raise Refused(message, "this is an index ARN; a stream belongs to a table")
    if service and service != "dynamodb":
        raise Refused(message, f"this ARN belongs to {service}")
    raise Refused(message, "" if service else "or give the table name as source.table")


def service_of_destination(text: str) -> str:
    """`sqs`, `sns` or `s3` for a well-formed on-failure destination.

    Raises:
        Refused: anything else; FIFO queues and topics, as Lambda does.
    """
    if _S3_URL.fullmatch(text):
        return "s3"
    service, _, resource = _parts(text)
    if service in {"sqs", "sns"} and _QUEUE_OR_TOPIC.fullmatch(resource):
        if resource.endswith(".fifo"):
            raise Refused(
                f"must be a standard {service.upper()} destination, found a FIFO one",
                "Lambda refuses FIFO destinations too",
            )
        return service
    raise Refused("must be an SQS ARN, an SNS ARN or s3://bucket/prefix", _destination_hint(text, service))


def require_destination(text: str) -> str:
    """What `service_of_destination` knows."""
    service_of_destination(text)
    return text


def require_s3_url(text: str) -> str:
    """`s3://bucket` or `s3://bucket/prefix`."""
    if not _S3_URL.fullmatch(text):
        raise Refused("must be s3://bucket/prefix")
    return text


def _destination_hint(text: str, service: str) -> str:
    if text.startswith("kafka://"):
        return "Kafka destinations are not offered"
    if service == "s3":
        return f"write s3://{text.rpartition(':')[2]}"
    if text.startswith(("http://", "https://")):
        return "give the queue's ARN, not its URL"
    return ""


def stream_region(text: str) -> str:
    """The region inside an ARN when it looks like one of AWS's own, else an empty string."""
    _, region, _ = _parts(text)
    return region if _REAL_REGION.fullmatch(region) else ""
