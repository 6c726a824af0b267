"""The configuration as text: the effective YAML of settings, and the JSON Schema of the file.

The effective YAML has every default filled in, units written out and secrets redacted. It loads again to equal
settings (except redacted parts), so it can serve as a starting point; `handler.path` is absolute, because the text may
be saved elsewhere.

The schema is for editors: completion, documentation, early mistakes. It describes the file as written: durations and
sizes are strings, and any single value may instead be a `${VAR}` reference.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from consumer.settings.expansion import scalar_value
from consumer.settings.model import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Mapping[str, Any] = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_LEAF_KEYS = ("type", "enum", "const", "anyOf", "pattern", "minimum", "maximum")
_SHOWN = 200  # characters of a value that are shown of it
_SECTION_TYPES = ("object", "array")


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what this package's reader would not take for text."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar_value(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def effective_yaml(settings: Settings) -> str:
    """The settings as YAML, in the order of the documentation."""
    data = settings.model_dump(mode="json")
    data["aws"]["endpoints"] = {name: str(url) for name, url in settings.aws.endpoints if url is not None}
    return yaml.dump(_printable(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def changed_settings(settings: Settings) -> dict[str, str]:
    """What differs from the defaults, by its dotted key, as short texts without secrets. What has no default differs
    always."""
    data = yaml.safe_load(effective_yaml(settings))
    found = {}
    for key, value, default in _leaves(data, _defaults(Settings)):
        if value != default and value not in ([], {}, ""):
            text = value if isinstance(value, str) else json.dumps(value)
            found[key] = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return found


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """As they are printed. A section without a default of its own has those of its keys."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = _defaults(kind)
        elif not field.is_required():
            value = field.get_default(call_default_factory=True)
            found[name] = model.model_construct(**{name: value}).model_dump(mode="json", include={name})[name]
    return found


def _leaves(data: Mapping[str, Any], defaults: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name, value in data.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and (isinstance(default, Mapping) or name not in defaults):
            yield from _leaves(value, default or {}, f"{above}{name}.")
        else:
            yield f"{above}{name}", value, default


def _printable(value: Any) -> Any:
    """Escape `${` so that reading it back does not expand it. What is secret in a URL is not in its text."""
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, str):
        return str(value).replace("${", "$${")
    return value


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
    models = {model.__name__: model for model in _sections(Settings)}
    for definition in (generated, *generated["$defs"].values()):
        texts = _texts(models[definition["title"]])
        for name, field in definition["properties"].items():
            section = generated["$defs"].get(field.get("$ref", "").rpartition("/")[2], {})
            if texts[name] != section.get("description"):
                field["description"] = texts[name]
            definition["properties"][name] = _or_reference(dict(sorted(field.items())))
        # `batch:` with nothing below it means all defaults.
        if not definition.get("required") and "anyOf" not in definition:
            definition["type"] = ["object", "null"]
    generated["title"] = "stream-consumer configuration"
    return {"$schema": DIALECT, **generated}


def json_schema_text() -> str:
    """The schema as the file `config/consumer.schema.json` holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _sections(kind)


def _texts(model: type[BaseModel]) -> dict[str, str]:
    """What is written below each key in the source. Pydantic can read that, too, but does it whenever the class is
    imported: a tenth of the time in which a file is checked, in each start of the daemon."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= dict(_texts_in(_classes(base.__module__)[base.__name__].body))
    return found


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {found.name: found for found in tree.body if isinstance(found, ast.ClassDef)}


def _texts_in(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, following in pairwise(body):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())


def _or_reference(field: dict[str, Any]) -> dict[str, Any]:
    """Let a single value also be a reference; sections, lists and free text need no addition."""
    leaf = {key: field[key] for key in _LEAF_KEYS if key in field}
    if not leaf or leaf == {"type": "string"} or leaf.get("type") in _SECTION_TYPES:
        return field
    rest = {key: value for key, value in field.items() if key not in _LEAF_KEYS}
    options = leaf["anyOf"] if set(leaf) == {"anyOf"} else [leaf]
    return {**rest, "anyOf": [*options, dict(_REFERENCE)]}
