"""How a verb ends that is told to: what it has taken is given back."""

from __future__ import annotations

import asyncio
import signal

import pytest

from consumer.cli.completed import completed


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
