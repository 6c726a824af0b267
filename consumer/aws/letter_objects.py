"""Dead letters out of Amazon S3: the objects of one application under the names that ``s3.py`` gives them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consumer.aws.errors import ApiCaller
from consumer.aws.lambda_format import mapping_id
from consumer.aws.s3 import SLOWEST_UPLOAD
from consumer.domain.errors import ResourceMissing
from consumer.domain.letter_reading import PAYLOAD_SUFFIX
from consumer.ports.letter_store import StoredLetter

AT_ONCE: Final = 16  # objects that are fetched at a time


@dataclass(frozen=True, slots=True)
class S3Place:
    """``s3://bucket/prefix``, in parts; ``prefix`` is empty or ends with a slash."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, url: str) -> S3Place:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return cls(bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else "")

    def holds(self, location: str) -> bool:
        """Whether an object of this ``s3://`` URL lies under it."""
        return location.startswith(f"s3://{self.bucket}/{self.prefix}")


class LetterObjects:
    """``ports.LetterStore`` on a bucket: letters in either format, parked ones, and no payloads.

    Args:
        client: an s3 client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        url: ``s3://bucket`` or ``s3://bucket/prefix``, as in ``on_failure.destination``.
        application: whose letters.
    """

    hidden_for = math.inf

    def __init__(self, client: Any, caller: ApiCaller, url: str, application: str) -> None:
        self.place = url
        self._client = client
        self._caller = caller
        self._at = S3Place.of(url)
        names = (f"aws/lambda/{application}/", f"aws/lambda/{mapping_id(application)}/", f"parked/{application}/")
        self._prefixes = [self._at.prefix + name for name in names]

    async def prepare(self) -> None:
        await self._caller.call("HeadBucket", self.place, self._client.head_bucket(Bucket=self._at.bucket))

    async def letters(self, *, parked: bool = True) -> AsyncIterator[StoredLetter]:
        for prefix in self._prefixes if parked else self._prefixes[:-1]:
            async for keys in self._listed(prefix):
                for start in range(0, len(keys), AT_ONCE):
                    some = keys[start : start + AT_ONCE]
                    for found in await asyncio.gather(*map(self._letter, some)):
                        if found is not None:
                            yield found

    async def _listed(self, prefix: str) -> AsyncIterator[list[str]]:
        """The keys of letters, page by page, in the order of their names."""
        request = {"Bucket": self._at.bucket, "Prefix": prefix}
        while True:
            listing = self._client.list_objects_v2(**request)
            answer = await self._caller.call("ListObjectsV2", self.place, listing)
            keys = [str(one["Key"]) for one in answer.get("Contents") or ()]
            yield [key for key in keys if not key.endswith((PAYLOAD_SUFFIX, "/"))]
            if not answer.get("IsTruncated"):
                return
            request["ContinuationToken"] = answer["NextContinuationToken"]

    async def _letter(self, key: str) -> StoredLetter | None:
        """None when it was deleted since the listing."""
        try:
            body, metadata = await get_object(self._client, self._caller, self._at.bucket, key)
        except ResourceMissing:
            return None
        attributes = {name.replace("-", "_"): value for name, value in metadata.items()}
        return StoredLetter(f"s3://{self._at.bucket}/{key}", key, body, attributes)

    async def keep(self, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
        return []

    async def put_back(self, letters: Sequence[StoredLetter]) -> None:
        """They never went away."""

    async def delete(self, letter: StoredLetter) -> None:
        await delete_object(self._client, self._caller, self._at.bucket, letter.handle)

    async def waiting(self) -> None:
        return None


async def get_object(client: Any, caller: ApiCaller, bucket: str, key: str) -> tuple[bytes, Mapping[str, str]]:
    """An object whole, and its metadata. ResourceMissing, PermissionDenied, DependencyError."""
    where = f"s3://{bucket}/{key}"
    head = await caller.call("HeadObject", where, client.head_object(Bucket=bucket, Key=key))
    size = int(head.get("ContentLength") or 0)

    async def whole() -> bytes:
        answer = await client.get_object(Bucket=bucket, Key=key)
        async with answer["Body"] as stream:
            content: bytes = await stream.read()
        return content

    content = await caller.call("GetObject", where, whole(), timeout=10.0 + size / SLOWEST_UPLOAD)
    return content, head.get("Metadata") or {}


async def delete_object(client: Any, caller: ApiCaller, bucket: str, key: str) -> None:
    """As after a success when it is gone. In a versioned bucket its versions stay."""
    await caller.call("DeleteObject", f"s3://{bucket}/{key}", client.delete_object(Bucket=bucket, Key=key))
