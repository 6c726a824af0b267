"""``kind: python`` in worker processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw
from structlog.testing import capture_logs

from tests.integration.handlers.parity_cases import RAISES
from tests.integration.handlers.support import call, invoke, number, running, workers, write_module

RETURNS = [
    ("None", "ok"),
    ("[]", "ok"),
    ("{}", "ok"),
    ("[records[1]]", "partial"),
    ("{records[1].sequence_number}", "partial"),
    ('{"batchItemFailures": [{"itemIdentifier": records[1].sequence_number}]}', "partial"),
    ("['unknown']", "failed"),
    ("[None]", "failed"),
    ("7", "failed"),
    ("True", "failed"),
    ("float('nan')", "failed"),
    ("'text'", "failed"),
    ("(r for r in records)", "failed"),
    ("coroutine()", "failed"),
    ("object()", "failed"),
    ("[Hostile()]", "failed"),
]


async def test_every_shape_of_answer(tmp_path: Path) -> None:
    cases = ",\n".join(f"    lambda records: {expression}" for expression, _ in RETURNS)
    path = write_module(
        tmp_path,
        f"""
import warnings
from consumer import Context, Record
warnings.simplefilter("error")
async def coroutine():
    pass
class Hostile(str):
    def __hash__(self):
        raise SystemExit(1)
CASES = [
{cases}
]
def plain(records, context):
    assert isinstance(context, Context) and isinstance(records[0], Record)
    return CASES[context.attempt](records)
async def asynchronous(records, context):
    return CASES[context.attempt](records)
""",
    )
    with capture_logs() as logs:
        for target in ("app:plain", "app:asynchronous"):
            async with running(path, "python", target) as handler:
                pids = workers()
                for index, (expression, kind) in enumerate(RETURNS):
                    outcome = await invoke(handler, call(2, attempt=index))
                    assert outcome.kind == kind, (target, expression, outcome)
                    assert outcome.failed == ((number(1),) if kind == "partial" else ()), expression
                    if kind == "failed":
                        assert outcome.fault is not None
                        assert outcome.fault.kind == "bad_response"
                assert workers() == pids
    assert not [entry for entry in logs if "never awaited" in str(entry.get("line"))]


@pytest.mark.parametrize("prefix", ["def", "async def"])
async def test_whatever_is_raised_fails_the_call_and_the_process_lives_on(tmp_path: Path, prefix: str) -> None:
    codes = [raised.code for raised in RAISES]
    path = write_module(
        tmp_path,
        f"""
        CODES = {codes!r}
        {prefix} handler(records, context):
            if context.attempt < len(CODES):
                exec(CODES[context.attempt], {{}})
        """,
    )
    async with running(path, "python") as handler:
        pids = workers()
        for attempt, raised in enumerate(RAISES):
            fault = (await invoke(handler, call(attempt=attempt))).fault
            assert fault is not None, raised
            assert (fault.kind, fault.type) == ("raised", raised.type), raised
            assert raised.message in fault.message, raised
            assert "app.py" in fault.stack[0], raised
            assert "in handler" in fault.stack[0], raised
            assert len(fault.stack) <= 45, raised
        assert (await invoke(handler, call(attempt=99))).kind == "ok"
        assert workers() == pids


async def test_a_number_with_its_zeros_written_out_is_no_poison(tmp_path: Path) -> None:
    """The service sends 1E+125 as a one and 125 zeros; boto3's deserializer raises for it."""
    path = write_module(
        tmp_path,
        """
        from decimal import Decimal

        def handler(records, context):
            image = records[0].new_image
            assert image == {"n": Decimal("-1E+125"), "ns": {Decimal("1E+125"), Decimal("0.5")}}, image
        """,
    )
    zeros = "0" * 125
    one = call()
    one.records[0].dynamodb.NewImage = Raw(f'{{"n":{{"N":"-1{zeros}"}},"ns":{{"NS":["1{zeros}","0.50"]}}}}'.encode())
    async with running(path, "python") as handler:
        outcome = await invoke(handler, one)
    assert outcome.kind == "ok", outcome


async def test_records_are_decoded_and_one_loop_serves_all_calls(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import asyncio
        loops = set()

        async def handler(records, context):
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0)
            assert len(loops) == 1
            assert [r.new_image["n"] for r in records] == [0, 1], records
            assert records[0].keys == {"pk": "k0"}
            assert context.lease_epoch == 7
            records[0].new_image["n"] = "changed"
            records.clear()
        """,
    )
    async with running(path, "python") as handler:
        batch = call(2)
        for _ in range(2):
            outcome = await invoke(handler, batch)
            assert outcome.kind == "ok", outcome


async def test_a_fork_that_returns_from_the_handler_does_not_answer(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import os

        def handler(records, context):
            pid = os.fork()
            if pid == 0:
                return ["the child's answer"]
            os.waitpid(pid, 0)
        """,
    )
    async with running(path, "python") as handler:
        for _ in range(2):
            assert (await invoke(handler, call())).kind == "ok"


async def test_stopping_the_loop_is_a_crash_and_the_process_is_replaced(tmp_path: Path) -> None:
    path = write_module(
        tmp_path,
        """
        import asyncio

        async def handler(records, context):
            if context.attempt == 1:
                asyncio.get_running_loop().stop()
                await asyncio.sleep(60)
        """,
    )
    async with running(path, "python") as handler:
        outcome = await invoke(handler, call())
        assert outcome.fault is not None
        assert outcome.fault.kind == "crashed"
        assert (await invoke(handler, call(attempt=2))).kind == "ok"


TYPED = """
from __future__ import annotations
from dataclasses import dataclass
import msgspec
from consumer import Context, Record
@dataclass
class Item:
    pk: str
    n: Number
Number = int
class Struct(msgspec.Struct):
    n: int
def handler(records: list[Record], context: Context) -> list[Record]:
    if context.attempt > 1:
        records[0].decode(Struct)
    return [record for record in records if record.decode(Item).n == 1]
"""


async def test_records_become_types_of_the_handler(tmp_path: Path) -> None:
    """Whose annotations are texts until they are looked up in its module."""
    path = write_module(tmp_path, TYPED)
    async with running(path, "python") as handler:
        outcome = await invoke(handler, call(2))
        assert (outcome.kind, outcome.failed) == ("partial", (number(1),))
        assert (await invoke(handler, call(2, attempt=2))).failed == (number(1),)


async def test_structures_of_another_msgspec_are_named(tmp_path: Path) -> None:
    """The code brings its own, as `pip install --target` leaves it: what is known of its classes is that they are not
    known. Dataclasses are the same everywhere."""
    shutil.copytree(Path(msgspec.__file__).parent, tmp_path / "msgspec")
    path = write_module(tmp_path, TYPED)
    async with running(path, "python") as handler:
        assert (await invoke(handler, call(2))).failed == (number(1),)
        outcome = await invoke(handler, call(2, attempt=2))
    assert outcome.fault is not None
    assert outcome.fault.type == "TypeError"
    assert "Struct is of another msgspec than the daemon's" in outcome.fault.message
