"""Output of the AWS CLI: ``aws lambda get-event-source-mapping`` and ``list-event-source-mappings``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.found import Contents, Found, Note, as_list
from consumer.cli.lambda_import.source_kind import source_kind

_SIGNS = frozenset({"EventSourceArn", "EventSourceMappingArn", "Stream", "SelfManagedEventSource", "StartingPosition"})
"""One of these is in every mapping, and in little else."""

_FUNCTION = re.compile(r"(?:.*:function:)?([^:]+)")
_TABLE = re.compile(r".*:table/([^/]+)/.*")


def is_mapping(document: Mapping[Any, Any]) -> bool:
    """Whether it has the options of one mapping."""
    return bool(_SIGNS.intersection(document))


def one_mapping(properties: Mapping[Any, Any]) -> Found:
    """The mapping whose options these are."""
    uuid, function, table = (str(properties.get(key) or "") for key in ("UUID", "FunctionArn", "EventSourceArn"))
    called, read = _FUNCTION.match(function), _TABLE.match(table)
    also = [match[1] for match in (called, read) if match]
    return Found(
        name=uuid or "the mapping",
        properties=properties,
        source=source_kind(properties),
        label=read[1] if read else uuid[:8],
        also=tuple(also),
    )


def listed_mappings(document: Mapping[Any, Any]) -> Contents:
    """All of a list."""
    listed = [item for item in as_list(document.get("EventSourceMappings")) if isinstance(item, Mapping)]
    contents = Contents([one_mapping(item) for item in listed])
    if document.get("NextMarker") or document.get("NextToken"):
        contents.notes.append(Note("NextMarker", "the list goes on: only its first page is here"))
    return contents
