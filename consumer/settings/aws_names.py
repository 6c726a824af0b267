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
STREAM_NAME = r"[a-zA-Z0-9_.-]{1,128}"
_KINESIS = re.compile(rf"stream/{STREAM_NAME}")
_CONSUMER = re.compile(rf"(stream/{STREAM_NAME})/consumer/.+")
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


def require_stream(text: str) -> str:
    """The name of a Kinesis stream."""
    if re.fullmatch(STREAM_NAME, text):
        return text
    hint = "an ARN belongs in source.stream_arn" if _ARN.fullmatch(text) else ""
    raise Refused("must be the name of a Kinesis stream (1 to 128 of a-z A-Z 0-9 _ . -)", hint)


def require_stream_arn(text: str, kind: str) -> str:
    """The ARN of a DynamoDB stream (`kind` dynamodb) or of a Kinesis stream (`kind` kinesis)."""
    service, _, resource = _parts(text)
    if kind == "kinesis":
        return _require_kinesis(text, service, resource)
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        return text
    message = "must be a DynamoDB stream ARN, arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/TIME"
    if service == "dynamodb" and _TABLE.fullmatch(resource):
        raise Refused(message, "this is a table ARN; use source.table, which finds the latest stream")
    if service == "dynamodb" and "/index/" in resource:
        raise Refused(message, "this is an index ARN; a stream belongs to a table")
    if service == "kinesis":
        raise Refused(message, "this ARN belongs to kinesis; set source.kind: kinesis")
    if service and service != "dynamodb":
        raise Refused(message, f"this ARN belongs to {service}")
    raise Refused(message, "" if service else "or give the table name as source.table")


def _require_kinesis(text: str, service: str, resource: str) -> str:
    message = "must be the ARN of a Kinesis stream, arn:aws:kinesis:REGION:ACCOUNT:stream/NAME"
    if service == "kinesis" and _KINESIS.fullmatch(resource):
        return text
    if service == "kinesis" and (stream := without_consumer(text)) != text:
        why = "enhanced fan-out is not offered, because the SDK for Python has no HTTP/2"
        raise Refused(message, f"this is the ARN of a consumer; {why}; give {stream}")
    if service == "dynamodb" and _STREAM.fullmatch(resource):
        raise Refused(message, "this is a table's own stream; set source.kind: dynamodb")
    if service and service != "kinesis":
        raise Refused(message, f"this ARN belongs to {service}")
    raise Refused(message, "" if service else "or give the stream's name as source.stream")


def without_consumer(arn: str) -> str:
    """The ARN of the stream in that of a consumer of enhanced fan-out; anything else as it is."""
    service, _, resource = _parts(arn)
    consumer = _CONSUMER.fullmatch(resource)
    return arn.removesuffix(resource) + consumer[1] if service == "kinesis" and consumer else arn


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


def arn_place(text: str) -> tuple[str, str] | None:
    """Region and account in an ARN; None when it is none."""
    match = _ARN.fullmatch(text)
    return (match["region"], match["account"]) if match else None


def table_name(text: str) -> str:
    """The name in a table's name or ARN."""
    return _parts(text)[2].removeprefix("table/") or text
