"""What an answer of a service must have to be one, however it looks otherwise.

Status 200 alone says nothing: captive portals, proxies, load balancers and other services answer with it, too, and the
SDK makes an *empty success* of a body that it cannot read. Taken for a success, that stores no dead letter, renews no
session and means "no such row". So whatever lacks what the service always gives is no answer: the request may have been
applied or not, as after a time-out.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

_REQUEST_IDS: Final = ("x-amzn-requestid", "x-amz-request-id")
_CHECKSUM: Final = "x-amz-crc32"  # DynamoDB sends it; 0.3 to 1 ms for a page of 1 MB
# Of an answer with the status 200, as the SDK has parsed it. What is not listed has an empty body when it succeeds.
_ALWAYS: Final[Mapping[str, tuple[str, type]]] = {
    "CreateTable": ("TableDescription", dict),
    "DescribeStream": ("StreamDescription", dict),
    "DescribeStreamSummary": ("StreamDescriptionSummary", dict),
    "DescribeTable": ("Table", dict),
    "GetQueueAttributes": ("Attributes", dict),
    "GetQueueUrl": ("QueueUrl", str),
    "GetShardIterator": ("ShardIterator", str),
    "GetTopicAttributes": ("Attributes", dict),
    "ListShards": ("Shards", list),
    "Publish": ("MessageId", str),
    "PutObject": ("ETag", str),
    "Query": ("Items", list),
    "Scan": ("Items", list),
    "SendMessage": ("MessageId", str),
}

_is_json_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Flaw(NamedTuple):
    """Why something is no answer: a code for metrics and logs, and a sentence that goes on after "the answer"."""

    code: str
    text: str


Check = Callable[[Mapping[str, Any]], Flaw | None]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back from the network. Names of ``headers`` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray

    def flaw(self, *, json_body: bool, bare: bool = False, decoded_later: bool = False) -> Flaw | None:
        """Why this cannot be an answer of an AWS service; None when it can.

        Args:
            json_body: the service speaks JSON, otherwise XML.
            bare: an answer to HEAD, which has the headers of a body that it does not have.
            decoded_later: whoever decodes the body says whether it is JSON.
        """
        if not self._is_signed() and (self.status < 300 or not self._names_an_error(json_body=json_body)):
            return Flaw("NotTheService", f"{self} has no request id: it came from something in between")
        if bare:
            return None
        damage = self._damage()
        if damage is not None or not json_body or decoded_later or self.status >= 300 or self._is_json_object():
            return damage
        return Flaw("Malformed", f"{self} is not a JSON object")

    def __str__(self) -> str:
        kind = self.headers.get("content-type") or "no content type"
        return f"with status {self.status} ({kind}, {len(self.body)} bytes)"

    def _is_signed(self) -> bool:
        """Whether it carries one of the marks that AWS gives all its answers. SNS repeats its own in the body."""
        named = any(self.headers.get(name) for name in (*_REQUEST_IDS, _CHECKSUM))
        return named or b"<RequestId>" in self.body[-2048:]

    def _names_an_error(self, *, json_body: bool) -> bool:
        """Local servers leave out the request id of an error, but not which error it is."""
        if not json_body:
            return b"<Code>" in self.body
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and ("__type" in found or "code" in found)

    def _damage(self) -> Flaw | None:
        if self.headers.get("content-encoding"):  # both speak of the body as it was sent
            return None
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) != len(self.body):
            return Flaw("Truncated", f"{self} was cut: {length} bytes were announced")
        checksum = self.headers.get(_CHECKSUM, "")
        if checksum.isdecimal() and int(checksum) != zlib.crc32(self.body):
            return Flaw("ChecksumMismatch", f"{self} was damaged: its CRC32 is not {checksum}")
        return None

    def _is_json_object(self) -> bool:
        try:
            _is_json_object(self.body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            try:  # NaN, lone surrogates and bad UTF-8: the records of a page may hold anything
                return isinstance(json.loads(self.body.decode("utf-8", "surrogateescape")), dict)
            except (ValueError, RecursionError):
                return False
        return True


def parsed_flaw(operation: str, answer: object) -> Flaw | None:
    """Why a parsed answer with the status 200 is none; None when it has what ``operation`` always gives."""
    if operation not in _ALWAYS or not isinstance(answer, Mapping):
        return None
    name, kind = _ALWAYS[operation]
    return has(name, kind)(answer)


def has(name: str, kind: type) -> Check:
    """A check for a field: of this type and, if text, not empty."""

    def check(answer: Mapping[str, Any]) -> Flaw | None:
        found = answer.get(name)
        if isinstance(found, kind) and found != "":
            return None
        return Flaw("Malformed", f"has no {name}")

    return check
