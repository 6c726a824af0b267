"""The end of a process that cannot work any more: exit 70 with all stacks, whatever became of standard error."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

DIE = "import io, sys\nfrom consumer.worker.control_thread import die\n{before}\ndie(70)"
PATIENCE = 20.0  # seconds; it takes one


def died(before: str, stderr: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", DIE.format(before=before)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    "before",
    ["", "sys.stderr = io.StringIO()", "sys.stderr = None", "sys.stderr.close()"],
    ids=["as it was", "redirected by user code", "taken away", "closed"],
)
def test_the_stacks_go_to_where_standard_error_was_at_the_start(before: str) -> None:
    """An inline handler may redirect ``sys.stderr`` and then hang."""
    done = died(before, subprocess.PIPE)
    assert done.returncode == 70
    assert b"Current thread" in done.stderr


def test_a_full_pipe_holds_up_nothing() -> None:
    """The other end is not read. The stacks are lost; a process that hangs on them would be worse."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
        assert died("", writing).returncode == 70
    finally:
        os.close(reading)
        os.close(writing)
