"""Recognising the names of AWS resources that a configuration may hold.

Only the shape is judged. Partition, region and account are free text, because emulators use their own
(`arn:aws:dynamodb:ddblocal:000000000000:...`); whether the resource exists is for `check-config --aws`.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

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


class NameRefused(ValueError):
    """A resource name has the wrong shape. `message` says what is wanted, `hint` what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def _parts(text: str) -> tuple[str, str, str]:
    """Service, region and resource of an ARN; three empty strings when it is none."""
    match = _ARN.fullmatch(text)
    return (match["service"], match["region"], match["resource"]) if match else ("", "", "")


def require_table(text: str) -> None:
    """Accept a table name or a table ARN."""
    service, _, resource = _parts(text)
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        raise NameRefused("must be a table name or table ARN, found a stream ARN", "use source.stream_arn")
    if (service == "dynamodb" and _TABLE.fullmatch(resource)) or re.fullmatch(TABLE_NAME, text):
        return
    raise NameRefused("must be a table name (3 to 255 of a-z A-Z 0-9 _ . -) or a table ARN")


def require_stream_arn(text: str, kind: str) -> None:
    """Accept the ARN of a DynamoDB stream (`kind` dynamodb) or of a Kinesis stream (`kind` kinesis)."""
    service, _, resource = _parts(text)
    if kind == "kinesis":
        if service != "kinesis" or not _KINESIS.fullmatch(resource):
            raise NameRefused("must be the ARN of a Kinesis stream")
        return
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        return
    message = "must be a DynamoDB stream ARN, arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/TIME"
    if service == "dynamodb" and _TABLE.fullmatch(resource):
        raise NameRefused(message, "this is a table ARN; use source.table, which finds the latest stream")
    if service == "dynamodb" and "/index/" in resource:
        raise NameRefused(message, "this is an index ARN; a stream belongs to a table")
    if service and service != "dynamodb":
        raise NameRefused(message, f"this ARN belongs to {service}")
    raise NameRefused(message, "" if service else "or give the table name as source.table")


def service_of_destination(text: str) -> str:
    """`sqs`, `sns` or `s3` for a well-formed on-failure destination.

    Raises:
        NameRefused: anything else, with what Lambda would say about FIFO queues and topics.
    """
    if _S3_URL.fullmatch(text):
        return "s3"
    service, _, resource = _parts(text)
    if service in {"sqs", "sns"} and _QUEUE_OR_TOPIC.fullmatch(resource):
        if resource.endswith(".fifo"):
            raise NameRefused(
                f"must be a standard {service.upper()} destination, found a FIFO one",
                "Lambda refuses FIFO destinations too",
            )
        return service
    raise NameRefused("must be an SQS ARN, an SNS ARN or s3://bucket/prefix", _destination_hint(text, service))


def require_s3_url(text: str) -> None:
    """Accept `s3://bucket` and `s3://bucket/prefix`."""
    if not _S3_URL.fullmatch(text):
        raise NameRefused("must be s3://bucket/prefix")


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


def require_http_url(text: str) -> None:
    """Accept an absolute http or https URL with a host."""
    expected = "must be an http:// or https:// URL with a host"
    try:
        parts = urlsplit(text)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", text):
        raise NameRefused(expected)


def redact_url(text: str) -> str:
    """The text with the user-info part of a URL (`user:password@`) replaced; other text unchanged."""
    return re.sub(r"(?<=://)[^/\s?#]*@", "REDACTED@", text)
