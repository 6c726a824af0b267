"""DestinationConfig as `on_failure`. A destination that cannot be known or used becomes a variable: without it, what
the mapping would have kept would be dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.commented_yaml import Writer
from consumer.cli.lambda_import.intrinsics import Unresolved
from consumer.cli.lambda_import.options import Options
from consumer.cli.lambda_import.values import UNSET, bucket_url, show
from consumer.settings.aws_names import service_of_destination
from consumer.settings.errors import Refused

_OPTION = "DestinationConfig"
_VARIABLE = "OnFailureDestination"


def write_on_failure(options: Options, out: Writer) -> None:
    """The section `on_failure`; nothing for a mapping without a destination."""
    config = options.get(_OPTION)
    if config is UNSET:
        return
    name = config
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key != "OnFailure" and value:
                options.note(f"{_OPTION}.{key}", "Lambda does not offer it for streams either")
        name = config.get("OnFailure")
    if isinstance(name, Mapping) and name:
        name = name.get("Destination") or _made_by_sam(name)
    if name in (None, "", {}, []):
        return
    shown, comment = _destination(options, name)
    out.section("on_failure")
    out.value("destination", shown, comment)
    if shown.startswith("s3://"):
        out.value("format", "lambda", "objects as Lambda writes them; `full` has the error, too")
    else:
        out.value("format", "full", "Lambda's fields and, beyond them, the records themselves")
    out.value("order", "continue", "as Lambda: later records of the same key go on")


def _made_by_sam(on_failure: Mapping[Any, Any]) -> Any:
    kind = on_failure.get("Type")
    return Unresolved(f"the {kind} destination that SAM makes" if kind else show(dict(on_failure)))


def _destination(options: Options, name: Any) -> tuple[str, str]:
    hint = " to the ARN of a standard queue or topic, or s3://bucket"
    if isinstance(name, str):
        shown = bucket_url(name)
        try:
            service_of_destination(shown)
        except Refused as error:
            options.note(f"{_OPTION}.OnFailure.Destination", f"{show(name)} {error}")
        else:
            return shown, f"{_OPTION}.OnFailure.Destination"
    reference, comment = options.reference(_VARIABLE, name if isinstance(name, Unresolved) else show(name), hint)
    return reference, comment
