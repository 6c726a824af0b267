"""Dead letters to Amazon S3: one object for each document.

S3 answers once an object is stored redundantly, so a ``send`` that returned is durable. The name of an object follows
from the document alone. A ``send`` without an answer is repeated with the same document, so it writes the same object
once more instead of a second one.

Names are Lambda's, with the application in the place of the mapping's UUID:
``[prefix/]aws/lambda/APPLICATION/SHARD/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-UUID``, all times in UTC. The UUID stands for the
records: when the same ones are given up again later, by another owner of the shard, the time differs and the UUID not.

Letters of a parked key have names that no time is in, so that a letter which is sent again is the same object whoever
sends it, and that list in the order in which they have to be handled:
``[prefix/]parked/APPLICATION/KEY DIGEST/PARK ID/STREAM LABEL/SHARD/ORDINAL``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from consumer.aws.errors import ApiCaller
from consumer.domain.dead_letter import letter_fields
from consumer.domain.errors import PayloadTooLarge
from consumer.domain.parking import ParkedShard

SERVICE_LIMIT: Final = 5 * 1024**3  # bytes of an object that is written in one request
CALL_TIMEOUT: Final = 10.0  # seconds for a request, and what a body takes on top of it at SLOWEST_UPLOAD
SLOWEST_UPLOAD: Final = 1024 * 1024  # bytes per second

ORDINAL_DIGITS: Final = 12

_NAMESPACE: Final = uuid.UUID("6d0f5a52-6f0e-5d4b-9c53-3a1c2f1f7d10")  # any constant; a new one would rename objects
_NOT_IN_HEADERS: Final = re.compile(r"[^\x20-\x7e]")
# An unescaped quote after a comma or brace opens a key, so this cannot match inside of a text.
_TIMESTAMP: Final = re.compile(rb'[{,]\s*"timestamp"\s*:\s*"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)[.\d]*Z"')


class S3Folder:
    """A bucket and a prefix to write objects under.

    Args:
        client: an s3 client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        url: ``s3://bucket`` or ``s3://bucket/prefix``; slashes at the end of it do not matter.
        clock_wall: Unix time in seconds, for documents that do not say when they were made.
        maximum_size: bytes above which an object is refused.
    """

    def __init__(
        self,
        client: Any,
        caller: ApiCaller,
        url: str,
        *,
        clock_wall: Callable[[], float],
        maximum_size: int = SERVICE_LIMIT,
    ) -> None:
        self.url = url
        self.maximum_size = maximum_size
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = client
        self._caller = caller
        self._clock_wall = clock_wall

    async def check(self) -> None:
        """Ask for the bucket. ResourceMissing, PermissionDenied (``s3:ListBucket``), DependencyError."""
        await self._caller.call("HeadBucket", self.url, self._client.head_bucket(Bucket=self.bucket))

    def key(self, document: bytes, attributes: Mapping[str, str], suffix: str = "") -> str:
        """The object's key for a document: the same for every attempt to deliver it. ValueError for a letter of a
        parked key that does not say its place."""
        if attributes.get("park_id"):
            return self._key_of_parked(document, attributes) + suffix
        year, month, day, hour, minute, second = self._time(document)
        records = attributes.get("idempotency_key") or hashlib.sha256(document).hexdigest()
        where = f"{attributes.get('application') or 'unknown'}/{attributes.get('shard_id') or 'unknown'}"
        when = f"{year}/{month}/{day}/{year}-{month}-{day}T{hour}.{minute}.{second}"
        return f"{self.prefix}aws/lambda/{where}/{when}-{uuid.uuid5(_NAMESPACE, records)}{suffix}"

    async def put(
        self,
        key: str,
        body: bytes,
        content_type: str = "application/json",
        attributes: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Write one object, replacing the one of that key, and return its ``s3://`` URL. ``attributes`` become its
        metadata.

        Raises:
            PayloadTooLarge: S3 does not take it in one request.
            ResourceMissing, PermissionDenied, DependencyError: the caller tries again.
        """
        if len(body) > self.maximum_size:
            raise PayloadTooLarge(self.url, len(body), self.maximum_size)
        writing = self._client.put_object(
            Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, Metadata=object_metadata(attributes)
        )
        await self._caller.call("PutObject", self.url, writing, timeout=CALL_TIMEOUT + len(body) / SLOWEST_UPLOAD)
        return f"s3://{self.bucket}/{key}"

    def _key_of_parked(self, document: bytes, attributes: Mapping[str, str]) -> str:
        label = letter_fields(document)["streamLabel"]
        application, digest, park_id = (attributes[name] for name in ("application", "key_digest", "park_id"))
        shard = ParkedShard(digest, label, attributes["shard_id"], park_id, first="")
        return self.prefix + parked_name(application, shard, int(attributes["ordinal"]))

    def _time(self, document: bytes) -> list[str]:
        found = _TIMESTAMP.search(document)
        if found:
            return [part.decode("ascii") for part in found.groups()]
        return dt.datetime.fromtimestamp(self._clock_wall(), tz=dt.UTC).strftime("%Y %m %d %H %M %S").split()


class S3DeadLetters:
    """``ports.DeadLetters`` on a bucket. The attributes become metadata: a tool need not open the object."""

    def __init__(self, folder: S3Folder) -> None:
        self.destination = folder.url
        self._folder = folder

    async def prepare(self) -> None:
        """Check that the bucket is there. ResourceMissing, PermissionDenied, DependencyError."""
        await self._folder.check()

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Store one document as one object, with the content type ``application/json``.

        Raises:
            PayloadTooLarge: beyond 5 GiB.
            ResourceMissing, PermissionDenied, DependencyError: the caller tries again.
        """
        await self._folder.put(self._folder.key(document, attributes), document, attributes=attributes)

    async def backlog(self) -> None:
        """Not known: objects are counted by listing all of them, which is slow, and paid for by the thousand."""


def parked_name(application: str, shard: ParkedShard, ordinal: int) -> str:
    """The name of a letter of a parked key, without the prefix of its destination."""
    where = ("parked", application, shard.digest, shard.park_id, shard.label, shard.shard_id)
    return "/".join((*where, f"{ordinal:0{ORDINAL_DIGITS}}"))


def object_metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    """Attributes as the metadata of an object: names with hyphens, because proxies drop headers with underscores, and
    values in ASCII (others become ``?``: the document has them), as headers are. Below the 2 KB that S3 takes."""
    found = {name.replace("_", "-"): _NOT_IN_HEADERS.sub("?", value).strip() for name, value in attributes.items()}
    return {name: value for name, value in found.items() if value}
