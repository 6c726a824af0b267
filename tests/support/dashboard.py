"""The Grafana dashboard, and its queries as Grafana would send them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
COMMITTED = FOLDER / "stream-consumer.json"

_FILLED_IN = {"$__rate_interval": "1m", "$application": ".*", "$table": ".*"}


def generator() -> ModuleType:
    """``deploy/grafana/generate.py``, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("generate_dashboard", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def panels() -> list[dict[str, Any]]:
    """Of the committed dashboard, without the titles of rows."""
    return [panel for panel in json.loads(COMMITTED.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """The title of the panel, and a query of it."""
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"]
            for name, value in _FILLED_IN.items():
                expr = expr.replace(name, value)
            yield panel["title"], expr
