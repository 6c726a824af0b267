"""Letters of parked keys out of Amazon S3: each has a name that says its place, so it is found without a search."""

from __future__ import annotations

from typing import Any, NamedTuple

from consumer.aws.errors import ApiCaller
from consumer.aws.letter_objects import S3Place, delete_object, get_object
from consumer.aws.s3 import parked_name
from consumer.domain.errors import ResourceMissing
from consumer.domain.letter_reading import ReadLetter, read_letter
from consumer.domain.parking import ParkedShard
from consumer.ports.letter_store import PayloadStore
from consumer.ports.parked_letters import ParkedLetter


class _Object(NamedTuple):
    """Of a letter, and where its payload is if it is apart."""

    key: str
    location: str


class ParkedObjects:
    """``ports.ParkedLetterBox`` on a bucket. A letter that was sent more than once is one object.

    Args:
        client: an s3 client of ``AwsSession``.
        caller: runs, translates and counts the calls.
        url: ``s3://bucket`` or ``s3://bucket/prefix``, as in ``on_failure.destination``.
        application: whose letters.
        payloads: where payloads lie that are apart from their letters.
    """

    def __init__(self, client: Any, caller: ApiCaller, url: str, application: str, payloads: PayloadStore) -> None:
        self._client = client
        self._caller = caller
        self._at = S3Place.of(url)
        self._application = application
        self._payloads = payloads

    async def find(self, shard: ParkedShard, ordinal: int) -> list[ParkedLetter]:
        key = self._at.prefix + parked_name(self._application, shard, ordinal)
        try:
            body, metadata = await get_object(self._client, self._caller, self._at.bucket, key)
        except ResourceMissing:
            return []
        location = ""
        try:
            letter = read_letter(body, {name.replace("-", "_"): value for name, value in metadata.items()})
            location = letter.location
            records = (await self._whole(letter)).records()
        except (ValueError, ResourceMissing) as error:
            return [ParkedLetter((), _Object(key, location), problem=f"s3://{self._at.bucket}/{key}: {error}")]
        return [ParkedLetter(records, _Object(key, location), letter.redacted)]

    async def remove(self, letter: ParkedLetter) -> None:
        """The letter, then its payload: a letter must never point to nothing."""
        found = letter.handle
        if not isinstance(found, _Object):
            raise TypeError(f"not a letter of this box: {found!r}")
        await delete_object(self._client, self._caller, self._at.bucket, found.key)
        if found.location:
            await self._payloads.delete(found.location)

    async def _whole(self, letter: ReadLetter) -> ReadLetter:
        return letter.with_payload(await self._payloads.fetch(letter.location)) if letter.location else letter
