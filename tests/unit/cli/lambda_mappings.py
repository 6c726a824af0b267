"""What the tests of ``import-esm`` share: a mapping as the CLI prints it, and what it becomes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from consumer.cli.lambda_import.intrinsics import as_intrinsics
from consumer.cli.lambda_import.mapping import Imported
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.printing import import_chosen
from consumer.cli.lambda_import.sources.detect import contents_of, contents_of_text
from consumer.settings.model import Settings
from consumer.settings.rules import RULES
from consumer.settings.yaml_file import parse as parse_values
from consumer.settings.yaml_file import read_text

STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-09-17T13:26:53.746"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders-dlq"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:orders-projector"

FROM_CLI: dict[str, Any] = {
    "UUID": "14e0db71-3c1f-4f0e-8b1b-1f2d3c4b5a69",
    "StartingPosition": "TRIM_HORIZON",
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "EventSourceArn": STREAM,
    "FunctionArn": FUNCTION,
    "LastModified": "2026-09-17T15:26:53.746000+02:00",
    "LastProcessingResult": "No records processed",
    "State": "Enabled",
    "StateTransitionReason": "User action",
    "DestinationConfig": {"OnFailure": {}},
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "MaximumRetryAttempts": -1,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "EventSourceMappingArn": "arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:14e0db71",
}

LIKE_LAMBDA: dict[str, Any] = {
    "application": "orders-projector",
    "aws": {"region": "eu-west-1"},
    "source": {
        "kind": "dynamodb",
        "stream_arn": STREAM,
        "starting_position": "trim_horizon",
        "on_gap": "continue",
    },
    "handler": {"kind": "lambda", "target": "app:handler", "timeout": "${HANDLER_TIMEOUT}", "processes": 2},
    "batch": {
        "batch_size": 100,
        "batching_window": "0s",
        "parallelization_factor": 1,
        "order": "shard",
        "report_batch_item_failures": False,
        "tumbling_window": "0s",
    },
    "retry": {"max_retry_attempts": -1, "max_record_age": -1, "bisect_on_error": False},
}
ENVIRON = {"HANDLER_TIMEOUT": "60s"}  # a mapping alone does not say it
ALWAYS = {"StartingPosition", "Timeout"}  # what is always to be looked at when the target is given


def converted(
    document: Any,
    *,
    target: str | None = None,
    mapping: str | None = None,
    parameters: dict[str, str] | None = None,
) -> Imported:
    """As the command does it: a text is that of a file, anything else a document."""
    given = Parameters(parameters)
    if isinstance(document, str):
        return import_chosen(contents_of_text(document, given), mapping, target)
    return import_chosen(contents_of(as_intrinsics(document), given), mapping, target)


def settings_of(imported: Imported, tmp_path: Path, **environ: str) -> Settings:
    """Through this package's own reader and model, without the list of what this version cannot do yet."""
    file = tmp_path / "imported.yaml"
    file.write_text(imported.yaml, encoding="utf-8")
    values = parse_values(read_text(file), str(file), ENVIRON | environ)
    assert values.problems == []
    settings = Settings.model_validate(values.data, context={"base_dir": tmp_path})
    assert [broken for rule in RULES for broken in rule.check(settings)] == []
    return settings


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def options(imported: Imported) -> set[str]:
    return {note.option for note in imported.notes}


FILES = Path(__file__).with_name("mapping_files")


def text_of(name: str) -> str:
    return (FILES / name).read_text(encoding="utf-8")
