"""What Lambda functions answer, turned into outcomes; answers that are no JSON included."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from consumer.domain.outcome import (
    OK,
    Outcome,
    bad_response,
    from_lambda_response,
    from_window_response,
)

# What almost every answer is, so that the daemon does not parse it.
_SUCCESS = frozenset({b"", b"null", b"{}", b'{"batchItemFailures": []}', b'{"batchItemFailures":[]}'})


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def lambda_outcome(
    body: bytes, batch: Collection[str], *, report_failures: bool | None, windowed: bool = False
) -> Outcome:
    """Apply Lambda's rules (``from_lambda_response``) to the response ``body`` (JSON text; empty is null). Unless
    ``report_failures`` is True it may be anything, but for the state of a window."""
    if not windowed and (report_failures is False or body in _SUCCESS):
        return OK
    try:
        response = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if report_failures is None and not windowed:
            return OK
        return bad_response(f"the response is not JSON: {error}")
    apply = from_window_response if windowed else from_lambda_response
    return apply(response, batch, report_failures=report_failures)
