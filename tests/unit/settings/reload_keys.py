"""Every key of the configuration with a value that is not its default, by what ``settings/reload.py`` has to say."""

from __future__ import annotations

import copy
from typing import Any

BASE: dict[str, Any] = {
    "application": "orders",
    "source": {"table": "orders"},
    "handler": {"kind": "lambda", "target": "m:h"},
}

NEEDS_RESTART: dict[str, Any] = {
    "application": "another",
    "aws.region": "eu-west-1",
    "aws.endpoints.dynamodb": "http://localhost:1",
    "aws.endpoints.dynamodb_streams": "http://localhost:1",
    "aws.endpoints.kinesis": "http://localhost:1",
    "aws.endpoints.sqs": "http://localhost:1",
    "aws.endpoints.sns": "http://localhost:1",
    "aws.endpoints.s3": "http://localhost:1",
    "source.kind": "kinesis",
    "source.table": "others",
    "source.stream": "changes",
    "source.stream_arn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2020-01-01T00:00:00.000",
    "source.duplicates": "keep",
    "source.starting_position": "latest",
    "source.on_gap": "continue",
    "handler.kind": "python",
    "handler.target": "m:other",
    "handler.command": ["/bin/true"],
    "handler.path": "/",
    "handler.python": "/bin/sh",
    "handler.isolation": "inline",
    "handler.processes": 3,
    "handler.timeout": "61s",
    "handler.max_calls": 5,
    "handler.max_memory": "1GiB",
    "batch.batch_size": 5,
    "batch.batching_window": "1s",
    "batch.parallelization_factor": 2,
    "batch.order": "shard",
    "batch.report_batch_item_failures": True,
    "batch.tumbling_window": "5s",
    "on_failure.destination": "s3://letters/here",
    "on_failure.overflow": "s3://letters/there",
    "on_failure.format": "lambda",
    "on_failure.order": "park_key",
    "on_failure.breaker": False,
    "idempotency.mode": "off",
    "leases.table": "other-leases",
    "leases.create_table": True,
    "leases.duration": "20s",
    "shutdown.grace": "26s",
    "http.host": "0.0.0.0",
    "http.port": 1,
    "http.show_errors": True,
    "logging.format": "console",
    "logging.emf": True,
    "tracing.enabled": True,
}

MAY_CHANGE: dict[str, Any] = {
    "logging.level": "debug",
    "filters": [{"eventName": ["INSERT"]}],
    "filter_options.numeric_on_n": True,
    "retry.max_retry_attempts": 3,
    "retry.max_record_age": "1h",
    "retry.bisect_on_error": False,
    "retry.backoff.initial": "1s",
    "retry.backoff.max": "1m",
    "on_failure.redact": ["ssn"],
    "limits.buffer": "32MiB",
    "limits.max_shards": 2,
    "source.poll.max_records": 10,
    "source.poll.target_latency": "1s",
    "source.poll.idle_backoff_max": "3s",
    "checkpoint.interval": "2s",
}


def document(**changed: Any) -> dict[str, Any]:
    """What a file holds: ``BASE`` with these dotted keys on top."""
    found = copy.deepcopy(BASE)
    for key, value in changed.items():
        *above, last = key.split(".")
        section = found
        for name in above:
            section = section.setdefault(name, {})
        section[last] = value
    return found
