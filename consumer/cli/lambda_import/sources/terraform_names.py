"""Terraform's names of the options, as the API of Lambda has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from consumer.cli.lambda_import.found import Function, as_list, as_mapping
from consumer.cli.lambda_import.intrinsics import Unresolved

MAPPING_TYPE: Final = "aws_lambda_event_source_mapping"
FUNCTION_TYPE: Final = "aws_lambda_function"
ALIAS_TYPE: Final = "aws_lambda_alias"

_OPTIONS = {
    "event_source_arn": "EventSourceArn",
    "function_name": "FunctionName",
    "starting_position": "StartingPosition",
    "starting_position_timestamp": "StartingPositionTimestamp",
    "batch_size": "BatchSize",
    "maximum_batching_window_in_seconds": "MaximumBatchingWindowInSeconds",
    "parallelization_factor": "ParallelizationFactor",
    "maximum_retry_attempts": "MaximumRetryAttempts",
    "maximum_record_age_in_seconds": "MaximumRecordAgeInSeconds",
    "bisect_batch_on_function_error": "BisectBatchOnFunctionError",
    "function_response_types": "FunctionResponseTypes",
    "tumbling_window_in_seconds": "TumblingWindowInSeconds",
    "enabled": "Enabled",
    "kms_key_arn": "KMSKeyArn",
    "metrics_config": "MetricsConfig",
    "tags": "Tags",
    "topics": "Topics",
    "queues": "Queues",
    "scaling_config": "ScalingConfig",
    "logging_config": "LoggingConfig",
    "provisioned_poller_config": "ProvisionedPollerConfig",
    "source_access_configuration": "SourceAccessConfigurations",
    "self_managed_event_source": "SelfManagedEventSource",
    "self_managed_kafka_event_source_config": "SelfManagedKafkaEventSourceConfig",
    "amazon_managed_kafka_event_source_config": "AmazonManagedKafkaEventSourceConfig",
    "document_db_event_source_config": "DocumentDBEventSourceConfig",
}
_SAYS_NOTHING = frozenset(
    {
        "arn", "function_arn", "id", "last_modified", "last_processing_result", "state", "state_transition_reason",
        "uuid", "region", "tags_all", "timeouts", "provider", "depends_on", "lifecycle", "count", "for_each",
    }
)  # fmt: skip
"""What the provider computes, and Terraform's own arguments; ``enabled`` tells what ``state`` would."""

_FUNCTION_OPTIONS = {
    "handler": "Handler", "runtime": "Runtime", "timeout": "Timeout", "package_type": "PackageType",
    "function_name": "FunctionName",
}  # fmt: skip


def mapping_options(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """The attributes of an ``aws_lambda_event_source_mapping``; one that is not known here keeps its name."""
    properties: dict[str, Any] = {}
    for key, value in attributes.items():
        if key in _SAYS_NOTHING or value is None or value in ("", [], {}):
            continue
        if key == "filter_criteria":
            properties["FilterCriteria"] = _filters(value)
        elif key == "destination_config":
            properties["DestinationConfig"] = _destination(value)
        else:
            properties[_OPTIONS.get(str(key), str(key))] = value
    return properties


def function_options(name: str, attributes: Mapping[Any, Any]) -> Function:
    """The attributes of an ``aws_lambda_function``."""
    known = {
        option: attributes[key] for key, option in _FUNCTION_OPTIONS.items() if attributes.get(key) not in (None, "")
    }
    environment = _block(attributes.get("environment"))
    if isinstance(environment, Unresolved):
        known["Environment"] = environment
    elif environment:
        known["Environment"] = {"Variables": environment.get("variables")}
    return Function(name, known)


def _block(value: Any) -> Any:
    """A block that may stand once: Terraform writes it as a list of one. Anything else than that is not understood,
    which must not look as if it were not there."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or value == []:
        return {}
    return value if isinstance(value, Unresolved | Mapping) else Unresolved(str(value))


def _filters(value: Any) -> Any:
    criteria = _block(value)
    filters = criteria if isinstance(criteria, Unresolved) else criteria.get("filter")
    if not isinstance(filters, list):
        return filters or {}
    return {
        "Filters": [
            item if isinstance(item, Unresolved) else {"Pattern": as_mapping(item).get("pattern")} for item in filters
        ]
    }


def _destination(value: Any) -> Any:
    config = _block(value)
    target = config if isinstance(config, Unresolved) else _block(config.get("on_failure"))
    if isinstance(target, Unresolved):
        return target
    return {"OnFailure": {"Destination": target.get("destination_arn")} if target else {}}


def references(expression: Any) -> tuple[str, ...]:
    """The resources, as ``type.name``, that the expression of a plan's configuration refers to."""
    names = [str(name).split(".") for name in as_list(as_mapping(expression).get("references"))]
    return tuple(dict.fromkeys(".".join(parts[:2]) for parts in names if len(parts) > 1))
