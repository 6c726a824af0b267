"""The configuration as it took effect: every default filled in, units written out, secrets redacted.

The text loads again to equal settings (except redacted parts), so it can serve as a starting point.
`handler.path` is printed absolute, because the text may be saved elsewhere.
"""

from __future__ import annotations

from typing import Any

import yaml

from consumer.settings.arns import redact_url
from consumer.settings.model import Settings
from consumer.settings.scalars import scalar_value


class _Dumper(yaml.SafeDumper):
    """Quotes exactly what this package's reader would not take for text."""


def _write_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar_value(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


def effective_yaml(settings: Settings) -> str:
    """The settings as YAML, in the order of the documentation."""
    data = settings.model_dump(mode="json")
    data["aws"]["endpoints"] = settings.aws.endpoints.as_dict()
    return yaml.dump(_printable(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _printable(value: Any) -> Any:
    """Redact user-info in URLs, and escape `${` so that reading it back does not expand it."""
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, str):
        return redact_url(value).replace("${", "$${")
    return value
