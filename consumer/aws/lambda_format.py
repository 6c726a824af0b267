"""``on_failure.format: lambda``: documents exactly as Lambda writes them, for readers that know those.

Lambda's messages in SQS and SNS say which records were given up and do not hold them. The stream forgets them after
24 hours, so here they are kept in S3 before the message goes out.
"""

from __future__ import annotations

import uuid
from typing import Final

from consumer.aws.messages import MAX_ATTRIBUTES
from consumer.aws.overflow import SUFFIX, WithOverflow
from consumer.aws.s3 import S3DeadLetters, S3Folder
from consumer.domain.dead_letter import lambda_document, split_payload
from consumer.domain.errors import LetterRefused
from consumer.ports.dead_letters import DeadLetters

CONTENT_TYPE: Final = "application/octet-stream"  # what Lambda's objects have
LOCATION: Final = "payload_location"  # the attribute of a message that says where its records are

_NAMESPACE: Final = uuid.UUID("0d8d3f0e-6a55-5c1e-8f0c-0c2b7b1b6f53")  # any constant; a new one would rename objects


def mapping_id(application: str) -> uuid.UUID:
    """The same for ever for one application: what the UUID of an event source mapping is in Lambda's object names."""
    return uuid.uuid5(_NAMESPACE, application)


class LambdaObjects(S3DeadLetters):
    """The same on a bucket, with the documents, names and content type of Lambda.

    Args:
        folder: where objects go.
        function_name: names the function in ``functionArn``.
    """

    def __init__(self, folder: S3Folder, function_name: str) -> None:
        super().__init__(folder)
        self._function_name = function_name

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Store one document, its ``payload`` a text with JSON in it, as one object. Raises as S3DeadLetters does."""
        named = attributes
        if "park_id" not in attributes:  # Lambda has no name for letters of parked keys
            named = attributes | {"application": str(mapping_id(attributes.get("application", "")))}
        body = lambda_document(document, self._function_name, with_payload=True)
        await self._folder.put(self._folder.key(document, named), body, CONTENT_TYPE, attributes)


class LambdaMessages(WithOverflow):
    """``ports.DeadLetters`` around a queue or a topic: Lambda's documents, and the records in S3.

    The records are stored first, so a message never stands for records that are nowhere. Its attribute
    ``payload_location`` (``s3://bucket/key``) says where they are; the body holds no field that Lambda's has not.

    Args:
        destination: where documents go.
        store: where the records of every document go.
        function_name: names the function in ``functionArn``.
    """

    def __init__(self, destination: DeadLetters, store: S3Folder, function_name: str) -> None:
        super().__init__(destination, store)
        self._function_name = function_name

    async def send(self, document: bytes, *, attributes: dict[str, str]) -> None:
        """Store the records, then deliver the document.

        Raises:
            LetterRefused: the destination does not even take the document without records, which are at
                ``payload_location``.
            ResourceMissing, PermissionDenied, DependencyError: of either place; the caller tries again.
        """
        _, payload = split_payload(document)
        location = await self._store.put(self._store.key(document, attributes, SUFFIX), payload)
        body = lambda_document(document, self._function_name, with_payload=False)
        try:
            await self._inner.send(body, attributes=_with_location(attributes, location))
        except LetterRefused as error:
            error.payload_location = location
            raise


def _with_location(attributes: dict[str, str], location: str) -> dict[str, str]:
    """A message takes ten attributes. The first letter of a parked key has as many, and gives up the type of its error,
    which nothing needs to bring it back."""
    if len(attributes) >= MAX_ATTRIBUTES:
        attributes = {name: value for name, value in attributes.items() if name != "error_type"}
    return attributes | {LOCATION: location}
