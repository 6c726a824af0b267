"""What AWS's own client for Python does beside calls, which are in ``test_parity.py``."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from consumer.domain.errors import HandlerImportError
from tests.functions.commands import FOLDER, awslambdaric
from tests.integration.handlers.runtimes import running_program
from tests.integration.handlers.support import call, invoke


async def test_the_function_has_a_boto3_of_its_own() -> None:
    import boto3

    with capture_logs() as logs:
        async with running_program(awslambdaric("with_boto3.handler"), FOLDER) as handler:
            assert (await invoke(handler, call())).kind == "ok"
    (line,) = [entry["line"] for entry in logs if entry["event"] == "handler.output" and "boto3" in entry["line"]]
    assert line.split()[1] == "1.43.127" != boto3.__version__


async def test_a_module_that_cannot_be_imported_is_named() -> None:
    command = awslambdaric("no_such_module.handler")
    with pytest.raises(HandlerImportError, match=r"Runtime\.ImportModuleError: .*no_such_module"):
        async with running_program(command, FOLDER):
            pass
