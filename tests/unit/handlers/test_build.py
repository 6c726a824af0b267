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
from tests.integration.handlers.support import write_module


def settings(**handler: Any) -> Any:
    chosen = {
        "kind": "lambda",
        "target": "app:handler",
        "command": (),
        "path": Path("/srv/app"),
        "python": None,
        "isolation": "process",
        "processes": 3,
        "timeout": 9.0,
        "max_calls": 0,
        "max_memory": 0,
    } | handler
    return SimpleNamespace(
        application="orders",
        aws=SimpleNamespace(region=None),
        source=SimpleNamespace(stream_arn="arn:aws:dynamodb:eu-north-1:1:table/t/stream/x"),
        handler=SimpleNamespace(**chosen),
        batch=SimpleNamespace(report_batch_item_failures=True),
    )


def test_kinds_and_isolations() -> None:
    built = build_handler(settings())
    assert isinstance(built, ProcessPoolHandler)
    assert built.width == 3
    assert isinstance(build_handler(settings(kind="python")), ProcessPoolHandler)
    assert isinstance(build_handler(settings(kind="python", isolation="inline")), InlineHandler)
    assert isinstance(build_handler(settings(isolation="inline")), ProcessPoolHandler)
    assert isinstance(build_handler(settings(kind="http")), HttpHandler)
    assert isinstance(build_handler(settings(command=("./bootstrap",))), ProcessPoolHandler)


async def test_application_and_stream_name_function_and_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_LAMBDA_FUNCTION_NAME"):
        monkeypatch.delenv(name, raising=False)
    path = write_module(
        tmp_path,
        """
        import os
        with open("seen", "w") as file:
            file.write(os.environ["AWS_LAMBDA_FUNCTION_NAME"] + " " + os.environ["AWS_REGION"])
        def handler(event, context): pass
        """,
    )
    handler = build_handler(settings(path=path, processes=1))
    await handler.start()
    await handler.close()
    assert (tmp_path / "seen").read_text() == "orders eu-north-1"
