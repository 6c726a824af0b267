"""The section `on_failure`: what becomes of records that the handler cannot settle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from consumer.domain.redaction import Redaction, path_problem
from consumer.settings.aws_names import require_destination, require_s3_url, service_of_destination
from consumer.settings.errors import Refused
from consumer.settings.kinds import FLAG
from consumer.settings.section import Section


def require_attribute_path(path: str) -> str:
    """A path as `Redaction` takes them."""
    problem = path_problem(path)
    if problem is not None:
        raise Refused(*problem)
    return path


class OnFailure(Section):
    """Where records go that are given up."""

    destination: Annotated[str, AfterValidator(require_destination)] | None = None
    """ARN of a standard SQS queue or SNS topic, or s3://bucket/prefix. Default: none."""
    overflow: Annotated[str, AfterValidator(require_s3_url)] | None = None
    """s3://bucket/prefix for payloads that the destination cannot hold. Default: none; then they are compressed, split,
    or kept in the lease table."""
    format: Literal["full", "lambda"] = "full"
    """full (default): Lambda's document with error and the records in it. lambda: exactly Lambda's document. Its
    messages in SQS and SNS hold no records, so these then go to overflow, which is required."""
    order: Literal["continue", "park_key", "block"] = "continue"
    """What later records of a key do when one is given up: continue (default, as in Lambda: they are handled), park_key
    (they follow it to the destination, in order, until dlq redrive frees the key) or block (the key waits in place and
    is tried every five minutes; what cannot wait any longer is parked). The last two need an S3 or SQS destination."""
    breaker: Annotated[bool, FLAG] = True
    """true (default): while most keys of a shard fail, or the handler cannot be reached, the shard pauses and tries a
    key now and then until it is well again, so that an outage does not drain the table into the dead letters. false:
    what fails is given up, however much it is."""
    redact: tuple[Annotated[str, AfterValidator(require_attribute_path)], ...] = ()
    """Attributes whose values never leave the daemon, in dead letters, logs and pages: ssn, address.street (into maps;
    lists are passed through), *.email (* is any one name). Default: none. A redacted letter can be handled again only
    by reading its item anew."""

    @property
    def redaction(self) -> Redaction | None:
        """`redact` ready to be used; None when it is empty."""
        return Redaction(self.redact) if self.redact else None

    @property
    def destination_kind(self) -> str | None:
        """Which service the destination belongs to: `sqs`, `sns` or `s3`; None without a destination."""
        return None if self.destination is None else service_of_destination(self.destination)
