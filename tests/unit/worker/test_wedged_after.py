"""When the main loop of a process counts as wedged."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.settings.model import Settings
from consumer.worker.app import wedged_after


@pytest.mark.parametrize(
    ("handler", "seconds"),
    [
        ({"kind": "python", "isolation": "inline", "timeout": "2s"}, 15.0),
        ({"kind": "python", "isolation": "inline", "timeout": "60s"}, 120.0),
        ({"kind": "python", "isolation": "process", "timeout": "300s"}, 60.0),
        ({"kind": "lambda", "timeout": "900s"}, 60.0),
    ],
)
def test_when_the_main_loop_counts_as_wedged(handler: dict[str, str], seconds: float) -> None:
    """Only an inline handler may block it, for its own time-out."""
    settings: dict[str, Any] = {
        "application": "app",
        "source": {"table": "orders"},
        "handler": {"target": "m:h", **handler},
    }
    assert wedged_after(Settings.model_validate(settings)) == seconds
