"""A module of the user's may have any name: also one of the daemon, of its libraries, and none that Python allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.integration.handlers.support import call, invoke, running, write_module

TAKEN = ("consumer", "msgspec", "structlog", "main", "wire", "frames", "faults", "target", "context", "functions")


@pytest.mark.parametrize("kind", ["lambda", "python"])
@pytest.mark.parametrize("as_package", [False, True], ids=["module", "package"])
async def test_names_of_the_daemon_are_free(tmp_path: Path, kind: str, as_package: bool) -> None:
    for name in TAKEN:
        folder = tmp_path / name if as_package else tmp_path
        folder.mkdir(exist_ok=True)
        write_module(folder, f"NAME = 'my {name}'", "__init__" if as_package else name)
    path = write_module(
        tmp_path,
        f"""
        import {", ".join(TAKEN)}
        def handler(batch, _):
            from {TAKEN[0]} import NAME
            for module in ({", ".join(TAKEN)}):
                print(module.NAME)
        """,
    )
    with capture_logs() as logs:
        async with running(path, kind=kind) as handler:
            for _ in range(2):
                outcome = await invoke(handler, call(2))
                assert outcome.kind == "ok", outcome
    lines = [entry["line"] for entry in logs if entry["event"] == "handler.output"]
    assert lines == [f"my {name}" for name in TAKEN] * 2


@pytest.mark.parametrize("kind", ["lambda", "python"])
async def test_a_folder_without_init_is_a_package_of_the_users_too(tmp_path: Path, kind: str) -> None:
    """Python ranks it behind real packages, and the daemon's is one."""
    (tmp_path / "consumer" / "inner").mkdir(parents=True)
    write_module(tmp_path / "consumer" / "inner", "NAME = 'mine'", "names")
    write_module(
        tmp_path / "consumer",
        "from consumer.inner import names\ndef handler(batch, context): print(names.NAME)",
        "orders",
    )
    with capture_logs() as logs:
        async with running(str(tmp_path), kind=kind, target="consumer.orders:handler") as handler:
            assert (await invoke(handler, call())).kind == "ok"
    assert [entry["line"] for entry in logs if entry["event"] == "handler.output"] == ["mine"]


async def test_a_handler_whose_module_is_called_consumer(tmp_path: Path) -> None:
    path = write_module(tmp_path, "def handler(event, context): raise ValueError(__name__)", "consumer")
    async with running(path, target="consumer:handler") as handler:
        outcome = await invoke(handler, call())
    assert outcome.fault is not None
    assert (outcome.fault.message, len(outcome.fault.stack)) == ("consumer", 1), "no line of the daemon"


async def test_the_public_names_are_the_types_of_the_call(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import pickle
        from consumer import Context, Record
        def handler(records, context):
            assert isinstance(context, Context)
            assert all(isinstance(record, Record) for record in records)
            assert pickle.loads(pickle.dumps(records[0])).sequence_number == records[0].sequence_number
        """,
    )
    async with running(path, kind="python") as handler:
        outcome = await invoke(handler, call(2))
    assert outcome.kind == "ok", outcome
