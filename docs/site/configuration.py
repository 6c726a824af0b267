"""Makes docs/configuration.md, the reference of the config file, from its JSON Schema.

python -m docs.site.configuration   # part of `make schema`

Texts, types, limits and defaults are those of the schema, examples those of config/consumer.yaml, and what may change
without a restart is what the daemon itself goes by.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from consumer.settings.printed import json_schema
from consumer.settings.reload import RELOADABLE
from consumer.settings.units import DURATION_PATTERN, SIZE_PATTERN

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "configuration.md"
SAMPLE: Final = ROOT / "config" / "consumer.yaml"
BEGIN: Final = "<!-- made from the schema by `make schema` -->"
END: Final = "<!-- end of what is made -->"

# Shown instead of the sample's, which is empty there.
EXAMPLES: Final[Mapping[str, str]] = {
    "filters": "filters:\n  - eventName: [INSERT]\n    dynamodb: {NewImage: {status: {S: [paid]}}}",
}

# Where a section is explained at length.
MORE: Final[Mapping[str, str]] = {
    "source": "[Kinesis](kinesis.md)",
    "handler": "[Migrating from Lambda](migrating-from-lambda.md)",
    "batch": "[Batches and windows](windows.md)",
    "filters": "[Filters](filters.md)",
    "filter_options": "[Filters](filters.md)",
    "on_failure": "[Dead letters](dead-letters.md), [Parked keys](parking.md)",
    "leases": "[Architecture](architecture.md)",
    "limits": "[Deployment](deployment.md)",
    "shutdown": "[Signals](signals.md)",
    "http": "[Status page](status-page.md), [Metrics](metrics.md)",
    "logging": "[Log events](log-events.md)",
    "tracing": "[Metrics](metrics.md)",
}


def page() -> str:
    """The whole page: what is made, and what is written by hand around it.

    Raises ValueError for a part of the schema that this module cannot describe."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference(json_schema(), SAMPLE.read_text(encoding='utf-8'))}\n{END}{after}"


def reference(schema: Mapping[str, Any], sample: str) -> str:
    """Every section with its keys, after a table of all of them; examples are those of the sample."""
    parts = [_overview(schema)]
    for name, field in schema["properties"].items():
        parts.append(f"## {name}\n")
        parts.append(_section_text(schema, name, field))
        parts.append(f"```yaml\n{example(sample, name)}\n```\n")
        if name in MORE:
            parts.append(f"More: {MORE[name]}.\n")
        parts += [_key(path, key) for path, key in keys(schema, name, field) if path != name]
    return "\n".join(parts)


def keys(schema: Mapping[str, Any], path: str, field: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key below a field, as its dotted path and its schema; ``required`` is in it for keys that must be there."""
    definition = _definition(schema, field)
    if definition is None:
        yield path, dict(field)
        return
    for name, inner in definition["properties"].items():
        needed = name in definition.get("required", ())
        yield from keys(schema, f"{path}.{name}", {**inner, "needed": needed} if needed else inner)


def _definition(schema: Mapping[str, Any], field: Mapping[str, Any]) -> Mapping[str, Any] | None:
    reference = field.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else None


def example(sample: str, section: str) -> str:
    """A section as the sample has it, without the comments that have a line of their own.

    Raises ValueError where the sample does not have it."""
    if section in EXAMPLES:
        return EXAMPLES[section]
    found = re.search(rf"^{section}:.*(?:\n(?![a-z]).*)*", sample, re.MULTILINE)
    if found is None:
        raise ValueError(f"{SAMPLE.name} has no section {section}; add it there, with its defaults")
    return "\n".join(line for line in found[0].splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _overview(schema: Mapping[str, Any]) -> str:
    lines = ["| section | what it is about |", "| --- | --- |"]
    for name, field in schema["properties"].items():
        lines.append(f"| [`{name}`](#{anchor(name)}) | {prose(_about(schema, field), ())} |")
    return "\n".join(lines) + "\n"


def _about(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    """What a section is about in a sentence: what the file says of it, else what it says of itself."""
    text: str = field.get("description") or (_definition(schema, field) or {})["description"]
    return re.match(r".*?(?:\.(?=\s)|$)", text)[0]  # type: ignore[index]  # it matches any text


def _section_text(schema: Mapping[str, Any], name: str, field: Mapping[str, Any]) -> str:
    definition = _definition(schema, field)
    if definition is None:
        return f"{_facts(name, {**field, 'needed': name in schema['required']})}\n\n{prose(field['description'], ())}\n"
    needed = " Required." if name in schema["required"] else ""
    return prose(definition["description"], ()) + needed + "\n"


def _key(path: str, field: Mapping[str, Any]) -> str:
    return f"### {path}\n\n{_facts(path, field)}\n\n{prose(field['description'], _choices(field))}\n"


def _facts(path: str, field: Mapping[str, Any]) -> str:
    facts = [f"**type** {kind(field)}"]
    if "default" in field:
        facts.append(f"**default** {_shown_default(field)}")
    elif field.get("needed"):
        facts.append("**required**")
    if path in RELOADABLE:
        facts.append(f"**reload** {RELOADABLE[path]}")
    return " · ".join(facts)


def _shown_default(field: Mapping[str, Any]) -> str:
    value = field["default"]
    if value is None and "`null`" not in kind(field):
        return "none"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def kind(field: Mapping[str, Any]) -> str:
    """The type and the limits of a value, in words. ValueError for one that has none here."""
    if field.get("type") == "array":
        return f"list of {'patterns' if field['items']['type'] == 'object' else 'texts'}"
    options = [one for one in field.get("anyOf", [field]) if not _is_reference(one)]
    *others, last = dict.fromkeys(word for one in options for word in _words(one, field))
    if last == "`0`" and "duration, 0 to" in others[0]:
        others, last = [], others[0]
    return f"{', '.join(others)} or {last}" if others else last


def _is_reference(option: Mapping[str, Any]) -> bool:
    return str(option.get("pattern", "")).startswith(r"\$\{")


def _words(option: Mapping[str, Any], field: Mapping[str, Any]) -> list[str]:
    """None for null, which only says that the key may be left out."""
    if "enum" in option:
        return [f"`{one}`" for one in option["enum"]]
    match option.get("type"), option.get("pattern"):
        case "integer", None:
            return [f"whole number, {option['minimum']} to {option['maximum']}"]
        case "boolean", None:
            return ["`true`", "`false`"]
        case ["boolean", "null"], None:
            return ["`true`", "`false`", "`null`"]
        case "null", None:
            return []
        case "string", None:
            return ["text"]
        case "string", str(pattern) if pattern == f"^{DURATION_PATTERN}$":
            return [f"duration, {_range('Duration', field)}"]
        case "string", str(pattern) if pattern == f"^{SIZE_PATTERN}$":
            return [f"size, {_range('Size', field)}"]
        case "string", str(pattern) if "[Tt ]" in pattern:
            return ["a time with its zone"]
        case "string", str(pattern):
            return ["text" if re.search(pattern, "") else f"text, `{pattern[2:-2]}`"]
    raise ValueError(f"a kind of value that docs/site/configuration.py cannot describe: {option}; add a case for it")


def _range(word: str, field: Mapping[str, Any]) -> str:
    """The schema has no limits for durations and sizes, which are texts in it: its description begins with them."""
    found = re.match(rf"{word} (\w+)\.\.(\w+)", field["description"])
    if found is None:
        raise ValueError(f"must begin with its limits, as in '{word} 1..2, default 1': {field['description']!r}")
    return f"{found[1]} to {found[2]}"


def _choices(field: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that a value may be."""
    options = field.get("anyOf", [field])
    words = {str(word) for option in options for word in option.get("enum", ()) if isinstance(word, str)}
    return tuple(sorted(words | {"true", "false", "null"}))


# Code in texts that are written for editors, which show them as they are: names of variables and keys, URLs, stars.
_CODE = re.compile(
    r"(`[^`]*`)|"  # as it is
    r"(s3://[\w/.-]*\w|/[\w/.-]+\w/[\w/.-]*\w|"  # places
    r"\b[a-z]+\.[a-z]+(?:_[a-z]+)*\b(?:: [a-z0-9]+)?|"  # batch.order: key
    r"\b[a-z]+_[a-z_]+(?:: [0-9]+)?|"  # max_records, parallelization_factor: 1
    r"\b[A-Z]+_[A-Z_]+\*?|\*(?:\.\w+)?|"  # AWS_ENDPOINT_URL*, *.email
    r"\bmodule:attribute\b)"
)


def prose(text: str, choices: tuple[str, ...]) -> str:
    """A text of the schema as Markdown: what is code in it looks like it, and nothing of it is taken for markup.

    ``choices`` are the values that the text explains, as ``name (default): ...`` or ``name: ...``."""
    marked = _CODE.sub(lambda match: match[1] or f"`{match[2]}`", text)
    for choice in choices:
        marked = re.sub(rf"(?<![\w`.-]){re.escape(choice)}(?= \(|:)", f"`{choice}`", marked)
    return re.sub(r"[<\[|]", lambda match: f"\\{match[0]}", marked)


def anchor(heading: str) -> str:
    """As the usual hosts name a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
