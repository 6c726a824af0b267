"""From what the SDK raises to what the domain understands.

The rest of the program never sees a ``ClientError``: it sees a permission that is missing, a resource that is not
there, a service that asks for patience, or a dependency that failed. Codes decide, never messages: emulators and AWS
itself leave messages empty. Messages come from outside, so they are cut to one short line before they reach a log.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    HTTPClientError,
    InvalidConfigError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as EndpointUnreachable
from botocore.parsers import ResponseParserError

from consumer.aws.answers import Check, Flaw, parsed_flaw
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    KeyUnusable,
    PermissionDenied,
    ResourceMissing,
    StreamConsumerError,
    Throttled,
    TrimmedData,
)
from consumer.domain.urls import redact_urls

T = TypeVar("T")

MAX_MESSAGE: Final = 300  # characters; service messages quote ARNs and sometimes whole requests

_THROTTLES: Final = re.compile(
    r"Thrott|SlowDown|TooManyRequests|RequestLimitExceeded|ThroughputExceeded|BandwidthLimit|OverLimit|^429$"
    r"|^LimitExceeded(Exception)?$"
)
_DENIED: Final = re.compile(r"AccessDenied|UnauthorizedOperation|AuthorizationError|NotAuthorized|^403$|^Forbidden$")
# Of a key, as Kinesis and S3 (KMSDisabledException, KMS.DisabledException), SQS (KmsDisabled) and SNS spell them.
_KEY_UNUSABLE: Final = re.compile(r"(?i)\bKMS\.?(Disabled|InvalidState|NotFound|OptInRequired)")
_KEY: Final = re.compile(r"arn:[^:\s]+:kms:[^\s\"',;)\]]+")
_MISSING: Final = re.compile(
    r"ResourceNotFound|QueueDoesNotExist|NonExistentQueue|NoSuchBucket|NoSuchKey|TableNotFound|^NotFound|^404$"
)
_BAD_CREDENTIALS: Final = re.compile(
    r"UnrecognizedClient|InvalidSignature|SignatureDoesNotMatch|ExpiredToken|InvalidClientTokenId|InvalidAccessKeyId"
    r"|MissingAuthenticationToken|IncompleteSignature|InvalidToken|TokenRefreshRequired|RequestTimeTooSkewed"
    r"|RequestExpired|AuthFailure"
)
_NO_ANSWER: Final = (HTTPClientError, EndpointUnreachable, ResponseParserError, aiohttp.ClientError, OSError)
_ON_BUCKETS: Final = {"PutObject", "GetObject", "HeadObject", "DeleteObject", "HeadBucket", "ListObjectsV2"}
_TRUST_HINT: Final = "; AWS_CA_BUNDLE names the authorities that are trusted, also that of a proxy that looks into TLS"
_NOT_CONFIGURED: Final = (
    ConfigParseError,
    InvalidConfigError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
_CONDITION_FAILED: Final = "ConditionalCheckFailed"
_CONFLICT: Final = "TransactionConflict"
_NAMED_BY_AWS: Final = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)(?: on resource: (\S+))?")
_IAM_NAMES: Final = {
    "ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "TransactWriteItems": "dynamodb:PutItem",
}
_PREFIXES: Final = (
    ("kinesis", re.compile(r"StreamSummary$|^ListShards$|StreamConsumers?$|^SubscribeToShard$")),
    ("sqs", re.compile(r"Queue|Message")),
    ("sns", re.compile(r"Publish|Topic|Subscri(be|ption)")),
    ("s3", re.compile(r"Object|Bucket|MultipartUpload|UploadPart")),
    ("sts", re.compile(r"CallerIdentity|AssumeRole")),
)
_ARN: Final = re.compile(r"\barn:[^:\s]*:([a-z0-9-]+):")
_KINESIS: Final = re.compile(r"(?i)\bkinesis\b")


class AwsConfigurationError(StreamConsumerError):
    """Region, credentials, profile or an endpoint are not configured in a way the SDK can use."""

    exit_code = 78


class CredentialsRejected(DependencyError):
    """The service does not accept the credentials: wrong, expired, or the machine's clock is off.

    A DependencyError (exit 69), because it passes once a rotation is through, keys that were just created are known
    everywhere, or the clock is set; ``action`` and ``resource`` say what was refused.
    """

    def __init__(self, action: str, resource: str, code: str, message: str = "") -> None:
        advice = "renew the credentials; check the clock"
        super().__init__(action, code, f"{message or 'no reason given'} on {resource} ({advice})")
        self.action = action
        self.resource = resource


class Unanswered(DependencyError):
    """No usable answer came back, so the request may or may not have been applied."""


class TransactionConflict(DependencyError):
    """Another request was writing to one of the rows at the same time. Nothing was applied; it passes in a moment."""


class StrangeAnswer(Unanswered):
    """Something answered that was not the service, or the answer was damaged (``consumer.aws.answers`` says which)."""

    def __init__(self, operation: str, flaw: Flaw) -> None:
        advice = "look for a proxy or a login page in between, and at aws.endpoints"
        super().__init__(operation, flaw.code, f"the answer {flaw.text} ({advice})")


class ConditionFailed(StreamConsumerError):
    """A conditional write was refused. ``item`` is the row as it stands (``ALL_OLD``), None when absent."""

    def __init__(self, operation: str, item: Mapping[str, Any] | None) -> None:
        super().__init__(f"{operation}: the condition does not hold")
        self.item = item


def one_line(text: object) -> str:
    """Text from outside as a single line of at most ``MAX_MESSAGE`` characters, without the credentials of URLs."""
    line = " ".join(redact_urls(str(text)).split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 3] + "..."


def iam_action(operation: str, resource: str) -> str:
    """The IAM action behind an API operation: streams and tables share ``dynamodb:``; an ARN names other services, and
    so do the words "Kinesis stream" in front of a name."""
    if operation in _IAM_NAMES:
        return _IAM_NAMES[operation]
    match = _ARN.search(resource)
    if match:
        return f"{match[1]}:{operation}"
    # Both services call what reads a shard the same.
    usual = "kinesis" if _KINESIS.search(resource) else "dynamodb"
    service = next((name for name, pattern in _PREFIXES if pattern.search(operation)), usual)
    return f"{service}:{operation}"


def translate(error: BaseException, operation: str, resource: str) -> StreamConsumerError:
    """The domain's name for what went wrong. Errors that have one already are returned as they are.

    Args:
        error: what the SDK, its HTTP client or the operating system raised.
        operation: the API operation, such as ``GetRecords``.
        resource: what it was about: an ARN, or a table, shard or queue name.
    """
    if isinstance(error, StreamConsumerError):
        return error
    if isinstance(error, ClientError):
        return _from_answer(error, operation, resource)
    if isinstance(error, TimeoutError):
        return Unanswered(operation, "Timeout", one_line(error) or "no answer in time")
    if isinstance(error, _NOT_CONFIGURED):
        return AwsConfigurationError(f"AWS credentials or region are not usable: {one_line(error)}")
    if _goes_in_circles(error, operation):
        found = "every place that was asked names another one, or none, for the bucket; look at aws.endpoints"
        return Unanswered(operation, "RedirectLoop", found)
    if isinstance(error, _NO_ANSWER):
        return Unanswered(operation, type(error).__name__, one_line(error) + _hint(error))
    return DependencyError(operation, type(error).__name__, one_line(error))


def _goes_in_circles(error: BaseException, operation: str) -> bool:
    """What the SDK does where an answer of S3 that sends it elsewhere names no region. It wraps some of these. Anything
    else that recurses too deeply is a bug."""
    deep = isinstance(error, RecursionError) or "maximum recursion depth" in str(error)
    return deep and operation in _ON_BUCKETS


def _hint(error: BaseException) -> str:
    """What the SDK does not say, or leaves out."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return _TRUST_HINT
    cause = getattr(error, "kwargs", {}).get("error")
    return f" ({cause.status} {one_line(cause.message)})" if isinstance(cause, aiohttp.ClientHttpProxyError) else ""


def _from_answer(error: ClientError, operation: str, resource: str) -> StreamConsumerError:
    details = error.response.get("Error", {})
    code = str(details.get("Code") or "Unknown").rpartition("#")[2]
    message = one_line(details.get("Message") or details.get("message") or "")
    if code.startswith(_CONDITION_FAILED):
        return ConditionFailed(operation, error.response.get("Item") or None)
    if code == "TransactionCanceledException":
        return _from_cancelled(error, operation, message)
    if code.startswith(_CONFLICT):
        return TransactionConflict(operation, code, message)
    if code == "ExpiredIteratorException":
        return ExpiredIterator(f"{operation} on {resource}: the shard iterator has expired")
    if code == "TrimmedDataAccessException":
        return TrimmedData(f"{operation} on {resource}: the position is older than the oldest record that is kept")
    if _THROTTLES.search(code):
        return Throttled(operation, code, message)
    if _BAD_CREDENTIALS.search(code):
        return CredentialsRejected(iam_action(operation, resource), resource, code, message)
    if _KEY_UNUSABLE.search(code):
        return KeyUnusable(_key_action(operation, resource), _key_in(message) or resource, code, message)
    if _DENIED.search(code):
        return _denied(code, operation, resource, message)
    if _MISSING.search(code):
        return ResourceMissing(resource, f"{operation}: {message or code}")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = Unanswered if status >= 500 or code.startswith("5") else DependencyError  # a 5xx may have been applied
    return kind(operation, code, message)


def _from_cancelled(error: ClientError, operation: str, message: str) -> StreamConsumerError:
    """A transaction lists one reason per item; a failed condition explains more than a conflict next to it."""
    reasons = error.response.get("CancellationReasons") or [
        {"Code": code} for code in re.findall(r"[A-Za-z]+", message.rpartition("[")[2])
    ]
    for reason in reasons:
        if str(reason.get("Code")).startswith(_CONDITION_FAILED):
            return ConditionFailed(operation, reason.get("Item") or None)
    codes = [str(reason.get("Code")) for reason in reasons if reason.get("Code") not in (None, "None")]
    code = codes[0] if codes else "TransactionCanceledException"
    if code.startswith(_CONFLICT):
        return TransactionConflict(operation, code, message)
    return (Throttled if _THROTTLES.search(code) else DependencyError)(operation, code, message)


def _denied(code: str, operation: str, resource: str, message: str) -> PermissionDenied:
    named = _NAMED_BY_AWS.search(message)
    if named:  # AWS says which action it evaluated; for encrypted resources that is a KMS one
        return PermissionDenied(named[1], (named[2] or resource).rstrip(".,"), message)
    if "kms" in code.lower():
        return PermissionDenied(_key_action(operation, resource), _key_in(message) or resource, message)
    return PermissionDenied(iam_action(operation, resource), resource, message)


def _key_action(operation: str, resource: str) -> str:
    """What a service does with the key of ``resource`` in this operation."""
    writes = iam_action(operation, resource).startswith(("sqs:Send", "s3:Put"))
    return "kms:GenerateDataKey" if writes else "kms:Decrypt"


def _key_in(message: str) -> str:
    """The ARN of a key in a message; empty without one."""
    found = _KEY.search(message)
    return found[0].rstrip(".") if found else ""


# Everything a call may raise for reasons outside this program; whatever else it raises is a bug and stays visible.
FAULTS: Final = (StreamConsumerError, ClientError, BotoCoreError, ResponseParserError, aiohttp.ClientError, OSError)


class ApiCaller:
    """Runs calls to AWS: bounded in number and in time, translated, and counted.

    Args:
        at_once: calls under way; others wait for their turn, which does not count as their time. One caller for each
            client, and fewer than its connections: a call that waited for a connection would time out unsent. None: no
            bound.
        observe: called after every call with the operation, its outcome (``ok``, ``throttled``, ``denied``,
            ``condition_failed``, ``conflict``, ``missing``, ``expired``, ``trimmed``, ``strange``, ``timeout`` or
            ``error``) and its seconds. A cancelled call has no outcome and is not reported.
        credentials_refused: called when a service did not accept the credentials, before the error is raised.
    """

    def __init__(
        self,
        observe: Callable[[str, str, float], None] | None = None,
        credentials_refused: Callable[[], None] = lambda: None,
        *,
        at_once: int | None = None,
    ) -> None:
        self._observe = observe
        self._credentials_refused = credentials_refused
        self._turns = None if at_once is None else asyncio.Semaphore(at_once)

    async def call(
        self,
        operation: str,
        resource: str,
        awaitable: Awaitable[T],
        timeout: float = 10.0,  # noqa: ASYNC109 - every call needs its own bound
        *,
        check: Check | None = None,
    ) -> T:
        """Await one API call for at most ``timeout`` seconds from its turn on.

        ``check`` says what is wrong with an answer that has what every success of ``operation`` has, but not what this
        request asked for.

        Raises:
            StreamConsumerError: whatever ``translate`` makes of a failure. ``Unanswered`` means that a write may
                have been applied all the same; so does ``StrangeAnswer``, an answer that is none.
        """
        if self._turns is None:
            return await self._send(operation, resource, awaitable, timeout, check)
        try:
            await self._turns.acquire()
        except asyncio.CancelledError:
            if isinstance(awaitable, Coroutine):
                awaitable.close()  # it was never begun, and would say so
            raise
        try:
            return await self._send(operation, resource, awaitable, timeout, check)
        finally:
            self._turns.release()

    async def _send(
        self,
        operation: str,
        resource: str,
        awaitable: Awaitable[T],
        timeout: float,  # noqa: ASYNC109 - every call needs its own bound
        check: Check | None,
    ) -> T:
        started = time.monotonic()
        outcome = "ok"
        try:
            async with asyncio.timeout(timeout):
                answer = await awaitable
            flaw = parsed_flaw(operation, answer)
            if flaw is None and check is not None and isinstance(answer, Mapping):
                flaw = check(answer)
            if flaw is not None:
                raise StrangeAnswer(operation, flaw)
            return answer
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():  # not asked for: the library gave the call up
                outcome = "error"
                raise Unanswered(operation, "Cancelled", "the SDK cancelled its own call") from error
            outcome = ""
            raise
        except (*FAULTS, RecursionError) as error:
            if isinstance(error, RecursionError) and not _goes_in_circles(error, operation):
                outcome = "error"
                raise
            translated = translate(error, operation, resource)
            outcome = outcome_of(translated)
            if isinstance(translated, CredentialsRejected):
                self._credentials_refused()
            if translated is error:
                raise
            raise translated from error
        except BaseException:
            outcome = "error"
            raise
        finally:
            if self._observe is not None and outcome:
                self._observe(operation, outcome, time.monotonic() - started)


_OUTCOMES: Final[tuple[tuple[type[StreamConsumerError], str], ...]] = (
    (Throttled, "throttled"),
    (PermissionDenied, "denied"),
    (CredentialsRejected, "denied"),
    (ConditionFailed, "condition_failed"),
    (TransactionConflict, "conflict"),
    (ResourceMissing, "missing"),
    (ExpiredIterator, "expired"),
    (TrimmedData, "trimmed"),
    (StrangeAnswer, "strange"),
)


def outcome_of(error: StreamConsumerError) -> str:
    """The metric label of a failed call: a small closed set, so that label values stay bounded."""
    if isinstance(error, DependencyError) and error.code == "Timeout":
        return "timeout"
    return next((label for kind, label in _OUTCOMES if isinstance(error, kind)), "error")
