"""From settings to handlers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.handlers.build import build_handler
from consumer.handlers.http_handler import HttpHandler
from consumer.handlers.inline import InlineHandler
from consumer.handlers.process_pool import ProcessPoolHandler


def settings(**handler: Any) -> Any:
    chosen = {
        "kind": "lambda",
        "target": "app:handler",
        "path": Path("/srv/app"),
        "isolation": "process",
        "processes": 3,
        "timeout": 9.0,
    } | handler
    return SimpleNamespace(
        application="orders",
        aws=SimpleNamespace(region=None),
        source=SimpleNamespace(stream_arn="arn:aws:dynamodb:eu-north-1:1:table/t/stream/x"),
        handler=SimpleNamespace(**chosen),
        batch=SimpleNamespace(report_batch_item_failures=True),
    )


def test_kinds_and_isolations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    built = build_handler(settings())
    assert isinstance(built, ProcessPoolHandler)
    assert built.width == 3
    assert built._environment == {"AWS_LAMBDA_FUNCTION_NAME": "orders"}
    assert built._region == "eu-north-1"
    assert isinstance(build_handler(settings(kind="python")), ProcessPoolHandler)
    assert isinstance(build_handler(settings(kind="python", isolation="inline")), InlineHandler)
    assert isinstance(build_handler(settings(isolation="inline")), ProcessPoolHandler)
    assert isinstance(build_handler(settings(kind="http")), HttpHandler)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "mine")
    kept = build_handler(settings())
    assert isinstance(kept, ProcessPoolHandler)
    assert kept._environment == {}
