"""docs/tutorial.md as a newcomer follows it: its files are written, its commands run, its answers found in theirs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from consumer.cli.main import main
from consumer.settings.load import load_settings
from tests.e2e.fleet import ROOT
from tests.e2e.test_demo import PLAIN, started, wait_for

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {"python": r"`(tutorial/\w+\.py)`", "yaml": r"`(tutorial/\w+\.yaml)`"}
RUN = "stream-consumer run --config tutorial/pets.yaml\n"
WRITE = "python tutorial/write.py\n"
MOST = 300.0  # seconds for all that the page runs: the rest of the ten minutes is for installing, reading and typing


class Newcomer:
    """Follows the page block by block in a folder; each shell gets the lines that ``make local`` printed."""

    def __init__(self, folder: Path, exports: list[str]) -> None:
        self.folder = folder
        self.prepared = "\n".join([". .venv/bin/activate", *exports, "mkdir -p tutorial"])
        self.daemon_log = folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.command = self.output = ""
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "tutorial").mkdir()

    def follow(self, kind: str, text: str, before: str) -> None:
        """One block; ``before`` is the page up to it."""
        if kind in FILES:
            more = "http: {port: 0}\n" if kind == "yaml" else ""  # other tests have the usual one
            (self.folder / re.findall(FILES[kind], before)[-1]).write_text(text + more)
        elif text == RUN:
            with self.daemon_log.open("wb") as log:
                self.daemon = subprocess.Popen(self.shell(f"exec {text}"), **self.place, stdout=log, stderr=log)
            wait_for(self.daemon_log, "lease.acquired")
        elif kind == "sh":
            done = subprocess.run(self.shell(text), **self.place, capture_output=True, text=True, timeout=120)
            self.command, self.output = text, done.stdout + done.stderr
            assert done.returncode == 0, f"{text}{self.output}"
        else:
            for line in text.splitlines():
                self.expect(line)

    def shell(self, text: str) -> list[str]:
        return ["bash", "-ec", f"{self.prepared}\n{text}"]

    @property
    def place(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": PLAIN}

    def expect(self, line: str) -> None:
        """In what the last command printed; what was written is seen in the daemon's log."""
        if self.command == WRITE:
            wait_for(self.daemon_log, re.escape(line))
        else:
            assert line in self.output, f"{line!r} in\n{self.output}"

    def leave(self) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGINT)
        assert self.daemon.wait(40) == 0, self.daemon_log.read_text()

    def end(self) -> None:
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()


def without_ports(lines: list[str]) -> list[str]:
    return [re.sub(r":\d+$", ":PORT", line) for line in lines]


@pytest.mark.soak
def test_every_step_does_what_the_page_says(tmp_path: Path) -> None:
    (_, first), (_, second), *steps = BLOCKS
    assert first == "make local TABLE=pets\n"
    log = tmp_path / "local.log"
    with started("-m", "demo.local", "--port", "0", "--table", "pets", log=log) as local:
        wait_for(log, "put_item")
        begun = time.monotonic()
        exports = re.findall(r"^  (export .*)$", log.read_text(), re.MULTILINE)
        assert without_ports(second.splitlines()) == [
            ". .venv/bin/activate",
            *without_ports(exports),
            "mkdir -p tutorial",
        ]
        newcomer = Newcomer(tmp_path, exports)
        at = PAGE.index(second)
        try:
            for kind, text in steps:
                at = PAGE.index(f"```{kind}\n{text}```", at + 1)
                newcomer.follow(kind, text, PAGE[:at])
            newcomer.leave()
            assert time.monotonic() - begun < MOST
        finally:
            newcomer.end()
        local.send_signal(signal.SIGINT)
        assert local.wait(20) == 0


# --- what of it can be seen without running it


def test_the_page_has_steps_of_every_kind() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert set(kinds) == {"sh", "python", "yaml", "text"}
    assert kinds.count("text") >= 4
    assert {text for kind, text in BLOCKS if kind == "sh"} >= {RUN, WRITE}


def test_every_command_of_the_page_takes_its_options() -> None:
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("stream-consumer ")]
    assert len(commands) >= 5
    for words in commands:
        command: click.Command = main
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None
            command = found
        command.make_context(command.name, words)  # UsageError otherwise


def test_the_code_compiles_and_the_configuration_is_one(tmp_path: Path) -> None:
    path = tmp_path / "pets.yaml"
    for kind, text in BLOCKS:
        if kind == "python":
            compile(text, "pets.py", "exec")
        elif kind == "yaml":
            path.write_text(text)
    assert load_settings(path, {}).application == "pet-insurance"
