"""How a verb ends that is told to: what it has taken is given back."""

from __future__ import annotations

import asyncio
import signal

import pytest
import structlog

from consumer.cli.completed import answer_of, completed
from consumer.domain.errors import DependencyError


def test_sigterm_ends_a_verb_as_ctrl_c_does_and_a_second_one_does_not_cut_it_short() -> None:
    given_back = []

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGTERM)
            for _ in range(3):
                await asyncio.sleep(0.0)
            given_back.append("all")

    with pytest.raises(SystemExit) as ended:
        completed(work())
    assert ended.value.code == 128 + signal.SIGTERM
    assert given_back == ["all"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "as it was"


def test_a_verb_that_has_a_handler_of_its_own_keeps_it() -> None:
    heard = []

    async def work() -> str:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.0)
        return "done"

    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("stop"))
    try:
        assert completed(work()) == "done"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == ["stop"]


def test_a_cancellation_of_the_verb_s_own_stays_one() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        completed(work())


def test_what_is_logged_on_the_way_is_no_part_of_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output is for scripts; and what a verb reports itself is not said twice."""

    async def work() -> int:
        log = structlog.get_logger()
        log.info("lease.acquired")
        log.warning("dead_letter.short_retention", seconds=345600)
        log.warning("replay.written", rows=3)
        return 7

    before = structlog.get_config()
    assert answer_of(work(), "replay.written") == 7
    out, err = capsys.readouterr()
    assert (out, err) == ("", "warning: dead_letter.short_retention seconds=345600\n")
    assert structlog.get_config() == before


def test_an_error_is_one_line_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        async with asyncio.TaskGroup():
            raise DependencyError("Query", "Timeout", "table\nleases")

    with pytest.raises(SystemExit) as ended:
        answer_of(work())
    assert ended.value.code == 69
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "table leases" in err) == ("", 1, True)
