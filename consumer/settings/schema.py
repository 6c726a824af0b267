"""The JSON Schema of the configuration file, for editors: completion, documentation, early mistakes.

It describes the file as written: durations and sizes are strings, and any single value may instead be a
`${VAR}` reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from consumer.settings.model import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Mapping[str, Any] = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_LEAF_KEYS = ("type", "enum", "const", "anyOf", "pattern", "minimum", "maximum")
_SECTION_TYPES = ("object", "array")


class _AsWritten(GenerateJsonSchema):
    """Prints defaults as they would be written in the file: 60.0 seconds as `1m`."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        serialization: Any = schema["schema"].get("serialization")
        if serialization and serialization["type"] == "function-plain" and not serialization.get("info_arg"):
            generated["default"] = serialization["function"](schema["default"])
        return generated


def json_schema() -> dict[str, Any]:
    """The schema as a JSON-serialisable dict; the same for every call."""
    generated = Settings.model_json_schema(schema_generator=_AsWritten)
    for definition in (generated, *generated["$defs"].values()):
        definition["properties"] = {name: _or_reference(field) for name, field in definition["properties"].items()}
        _allow_empty(definition)
    generated["title"] = "stream-consumer configuration"
    return {"$schema": DIALECT, **generated}


def json_schema_text() -> str:
    """The schema as the file `config/consumer.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _or_reference(field: dict[str, Any]) -> dict[str, Any]:
    """Let a single value also be a reference; sections, lists and free text need no addition."""
    if "$ref" in field or field.get("type") in _SECTION_TYPES or _is_free_text(field):
        return field
    leaf = {key: field[key] for key in _LEAF_KEYS if key in field}
    rest = {key: value for key, value in field.items() if key not in _LEAF_KEYS}
    options = leaf["anyOf"] if set(leaf) == {"anyOf"} else [leaf]
    return {**rest, "anyOf": [*options, dict(_REFERENCE)]}


def _is_free_text(field: dict[str, Any]) -> bool:
    return field.get("type") == "string" and "pattern" not in field and "enum" not in field


def _allow_empty(definition: dict[str, Any]) -> None:
    """`batch:` with every key commented out is null to YAML and means all defaults."""
    if not definition.get("required"):
        definition["type"] = ["object", "null"]
