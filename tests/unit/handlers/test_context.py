"""The context object and the names it takes from the environment."""

from __future__ import annotations

import subprocess
import sys
import time

import consumer
from consumer.domain.function_name import function_arn
from consumer.domain.kinesis_records import KinesisRecord
from consumer.domain.record import Record
from consumer.handlers.runtime.context import Context, FunctionIdentity


def test_every_attribute_of_lambdas_context_is_there() -> None:
    context = Context()
    for name in (
        "function_name",
        "function_version",
        "invoked_function_arn",
        "memory_limit_in_mb",
        "aws_request_id",
        "log_group_name",
        "log_stream_name",
        "application",
        "shard_id",
        "lease_epoch",
        "attempt",
        "redrive",
    ):
        assert getattr(context, name) is not None
    assert (context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id) == (None, None)
    assert (context.client_context, context.tenant_id) == (None, None)
    assert int(context.memory_limit_in_mb) > 0
    context.middleware_was_here = True  # type: ignore[attr-defined]  # middleware does so


def test_remaining_time_is_true_and_never_negative() -> None:
    assert 0 < Context(deadline=time.monotonic() + 0.5).get_remaining_time_in_millis() <= 500
    assert Context(deadline=time.monotonic() - 1).get_remaining_time_in_millis() == 0


def test_the_environment_names_the_function() -> None:
    environment = {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256"}
    identity = FunctionIdentity(environment, "application")
    assert (identity.name, identity.memory_mb, identity.log_group) == ("f", "256", "/aws/lambda/f")
    assert FunctionIdentity({}, "application").name == "application"


def test_the_arn_lies_beside_the_stream() -> None:
    source = "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/t/stream/2026-01-01T00:00:00.000"
    assert function_arn(source, "f") == "arn:aws-cn:lambda:cn-north-1:123456789012:function:f"
    assert function_arn("", "f") == "arn:aws:lambda:::function:f"


def test_the_package_exports_names_for_handlers_lazily() -> None:
    assert consumer.Context is Context
    assert consumer.KinesisRecord is KinesisRecord
    assert consumer.Record is Record
    assert set(consumer.__all__) == {"Context", "KinesisRecord", "Record"} <= set(dir(consumer))
    code = "import sys, consumer; print(any(m.startswith('consumer.') or m == 'msgspec' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
