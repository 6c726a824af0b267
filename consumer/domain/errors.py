"""Every error this product raises on purpose. An error is a type with attributes, not a text to parse.

``exit_code`` is what the process ends with when the error reaches the command line (sysexits.h numbers).
"""

from __future__ import annotations

from typing import ClassVar


class StreamConsumerError(Exception):
    """Root of all errors of this package. ``str()`` is one line: what, where, why and what to do."""

    exit_code: ClassVar[int] = 70


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group, however deep the groups of a task group are nested."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error


# --- AWS, as the adapters report it -----------------------------------------------------------------


class Unavailable(StreamConsumerError):
    """What is needed cannot be had now, and may come back: a daemon that is up waits for it, whatever it is.

    At the start only what passes by itself is waited for: a missing permission or resource needs a person.
    """


class DependencyError(Unavailable):
    """A call to a dependency failed in a way that may pass: time-out, 5xx, reset, page that does not decode.

    ``operation`` is the API operation (``GetRecords``), ``code`` the service's error code or the kind of fault.
    """

    exit_code = 69

    def __init__(self, operation: str, code: str, message: str = "") -> None:
        super().__init__(f"{operation} failed: {code}" + (f": {message}" if message else ""))
        self.operation = operation
        self.code = code


class Throttled(DependencyError):
    """The service asked for fewer calls (``ProvisionedThroughputExceeded``, ``LimitExceeded``, ...)."""


class PermissionDenied(Unavailable):
    """The credentials may not do ``action`` (an IAM action such as ``dynamodb:GetRecords``) on ``resource``."""

    exit_code = 77

    def __init__(self, action: str, resource: str, message: str = "") -> None:
        why = f": {message}" if message else ""
        super().__init__(f"permission denied: {action} on {resource}{why} (allow it in the role's policy)")
        self.action = action
        self.resource = resource


class KeyUnusable(PermissionDenied):
    """The KMS key that encrypts something cannot be used for ``action``: it is disabled, about to be deleted or gone.
    Like a permission it takes a person to mend, and reading is tried again meanwhile. ``resource`` is the key where the
    service names it, else what it encrypts."""

    def __init__(self, action: str, resource: str, code: str, message: str = "") -> None:
        key = resource if ":kms:" in resource else f"the key of {resource}"
        why = f"{code}: {message}" if message else code
        advice = "look at the key in KMS: it must exist and be enabled"
        StreamConsumerError.__init__(self, f"{action} is not possible with {key}: {why} ({advice})")
        self.action = action
        self.resource = resource
        self.code = code


class ResourceMissing(Unavailable):
    """A table, stream, shard or queue does not exist (any more). ``resource`` names it."""

    exit_code = 78

    def __init__(self, resource: str, hint: str = "") -> None:
        super().__init__(f"{resource} does not exist" + (f" ({hint})" if hint else ""))
        self.resource = resource


class MisconfiguredResource(StreamConsumerError):
    """A resource exists but cannot be used as configured (stream disabled, wrong key schema, foreign rows)."""

    exit_code = 78


class ExpiredIterator(StreamConsumerError):
    """The shard iterator is older than 15 minutes (GetRecords ``ExpiredIteratorException``)."""


class TrimmedData(StreamConsumerError):
    """The position lies before the oldest record that is kept (``TrimmedDataAccessException``)."""


# --- coordination ----------------------------------------------------------------------------------


class LeaseLost(StreamConsumerError):
    """A conditional write on a lease row was refused: this worker's epoch of the shard is over."""

    def __init__(self, shard_id: str, epoch: int, found: str) -> None:
        super().__init__(f"lease of {shard_id} at epoch {epoch} is lost: {found}")
        self.shard_id = shard_id
        self.epoch = epoch
        self.found = found


class LeaseDeleted(LeaseLost):
    """The lease row is not there any more, so no other worker has it: its owner can put it back from memory."""

    def __init__(self, shard_id: str, epoch: int) -> None:
        super().__init__(shard_id, epoch, "the row was deleted")


class SessionFenced(StreamConsumerError):
    """Another worker fenced this incarnation, or its row is gone: it can never renew again."""


# --- handlers and destinations ---------------------------------------------------------------------


class HandlerImportError(StreamConsumerError):
    """``handler.target`` cannot be imported, is not callable, or its import hangs."""

    exit_code = 78


class HandlerImportMayPass(HandlerImportError, Unavailable):
    """The import failed because of something else that it needs: the network, a service, or time."""

    exit_code = 69


class LetterRefused(StreamConsumerError):
    """The destination can never take this document, however often it is sent; it may take the records in another form.

    ``payload_location`` says where the payload is durable already when not even a document without it was taken; else
    it is empty.
    """

    payload_location = ""


class UnsuitableCharacters(LetterRefused):
    """The destination does not take a character in the document (``InvalidMessageContents`` of SQS)."""


class PayloadTooLarge(LetterRefused):
    """A dead letter is larger than its destination takes. It is never truncated."""

    def __init__(self, destination: str, size: int, limit: int) -> None:
        super().__init__(
            f"a dead letter of {size} bytes does not fit into {destination} (limit {limit} bytes): set"
            " on_failure.overflow, or lower batch.batch_size"
        )
        self.size = size
        self.limit = limit
