"""The ``context`` argument of every handler: Lambda's attributes, plus what this product knows about the call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from ...domain.function_name import function_arn, function_name

DEFAULT_MEMORY_MB = "1024"
FUNCTION_VERSION = "$LATEST"


class FunctionIdentity:
    """What stays the same for all calls of a process: the name tags that Lambda code reads from its context. As in
    Lambda's own runtime the environment names the function, so context and environment agree."""

    def __init__(self, environment: Mapping[str, str], application: str) -> None:
        name = self.name = function_name(environment, application)
        self.version = environment.get("AWS_LAMBDA_FUNCTION_VERSION", FUNCTION_VERSION)
        self.memory_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", DEFAULT_MEMORY_MB)
        self.log_group = environment.get("AWS_LAMBDA_LOG_GROUP_NAME", f"/aws/lambda/{name}")
        self.log_stream = environment.get("AWS_LAMBDA_LOG_STREAM_NAME", f"[{FUNCTION_VERSION}]{os.getpid():x}")


class CognitoIdentity:
    """Who called the function by Amazon Cognito: for a stream nobody, but Lambda's context always has the object."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id: str | None = None
        self.cognito_identity_pool_id: str | None = None


class Context:
    """Lambda's context object, plus ``application``, ``shard_id``, ``lease_epoch``, ``attempt`` and ``redrive``.

    ``lease_epoch`` is the fencing token: it grows with every change of owner of the shard, so a sink that refuses
    smaller epochs than it has seen cannot be written by a worker that lost its lease. ``attempt`` is 1 for the
    first call of a batch. ``redrive``: the records come out of the dead letters (``stream-consumer dlq redrive``).
    Every argument has a default, so that handler tests can write ``Context()``.

    A plain object on purpose (no ``__slots__``): Lambda middleware stores its own attributes on the context.
    """

    client_context: None = None
    tenant_id: None = None

    def __init__(
        self,
        *,
        function: FunctionIdentity | None = None,
        aws_request_id: str = "00000000-0000-0000-0000-000000000000",
        invoked_function_arn: str = "",
        source_arn: str = "",
        application: str = "application",
        shard_id: str = "",
        lease_epoch: int = 0,
        attempt: int = 1,
        redrive: bool = False,
        deadline: float | None = None,
    ) -> None:
        """``deadline`` is a ``time.monotonic()`` instant, which all processes of a host share; default: in 60 s. The
        ARN of the function, unless it is given, is one beside ``source_arn``."""
        if function is None:
            function = FunctionIdentity({}, application)
        self.function_name = function.name
        self.function_version = function.version
        # Lambda gives the memory size as text, straight from the environment.
        self.memory_limit_in_mb = function.memory_mb
        self.log_group_name = function.log_group
        self.log_stream_name = function.log_stream
        self.aws_request_id = aws_request_id
        self.identity = CognitoIdentity()
        self.invoked_function_arn = invoked_function_arn or function_arn(source_arn, function.name)
        self.application = application
        self.shard_id = shard_id
        self.lease_epoch = lease_epoch
        self.attempt = attempt
        self.redrive = redrive
        self._deadline = time.monotonic() + 60.0 if deadline is None else deadline

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until this call is cancelled (inline) or its process killed; never negative."""
        return max(int((self._deadline - time.monotonic()) * 1000), 0)

    def log(self, message: object) -> None:
        """Write to the output of the function, as Lambda's context does; the text ends its line here."""
        text = str(message)
        sys.stdout.write(text if text.endswith("\n") else text + "\n")

    def __repr__(self) -> str:
        return (
            f"Context(aws_request_id={self.aws_request_id!r}, shard_id={self.shard_id!r}, "
            f"lease_epoch={self.lease_epoch}, attempt={self.attempt})"
        )
