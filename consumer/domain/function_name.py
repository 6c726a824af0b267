"""The function that Lambda would have called. There is none, but code, logs and failure documents name it."""

from __future__ import annotations

import functools
from collections.abc import Mapping

VARIABLE = "AWS_LAMBDA_FUNCTION_NAME"


def function_name(environment: Mapping[str, str], application: str) -> str:
    """The application names the function, unless the environment does (code moved off Lambda keeps its name so)."""
    return environment.get(VARIABLE) or application


@functools.lru_cache(maxsize=64)
def function_arn(source_arn: str, name: str) -> str:
    """The ARN a function of this name would have beside its stream: same partition, region and account.

    Powertools logs the ARN, and user code splits it for region and account.
    """
    parts = source_arn.split(":")
    partition, region, account = (parts[1], parts[3], parts[4]) if len(parts) > 5 else ("aws", "", "")
    return f"arn:{partition}:lambda:{region}:{account}:function:{name}"
