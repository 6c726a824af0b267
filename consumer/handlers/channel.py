"""The seam between one worker process and how the daemon talks to it: frames on a socket, or the Lambda Runtime API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from consumer.domain.errors import HandlerImportError
from consumer.domain.outcome import HandlerCall, Outcome

Answer = Outcome | bytes  # what came of a call, or the JSON that a Lambda function returned


@dataclass(frozen=True, slots=True)
class Program:
    """What to start: its command, what is added to its environment, descriptors it inherits, and where it starts."""

    command: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()
    folder: str | None = None


class Listener(Protocol):
    """What a channel tells its process."""

    def on_ready(self, problem: HandlerImportError | None) -> None:
        """The target was imported, or could not be."""

    def on_answer(self, answer: Answer) -> None:
        """The call under way has ended."""

    def on_idle(self) -> None:
        """The process can take the next call."""

    def on_broken(self, problem: str) -> None:
        """The process said what makes no sense: it is of no use any more."""


class Channel(Protocol):
    """The way to one process. Made for it, and used up with it."""

    @property
    def name(self) -> str:
        """The setting that names the user's code, with its value, for errors: ``handler.target 'app:handler'``."""

    async def open(self) -> Program:
        """Prepare, and say what to start. OSError."""

    async def connect(self, pid: int) -> None:
        """The process runs. What is prepared for it alone is closed here."""

    def hand_over(self, call: HandlerCall, event: bytes) -> Outcome | None:
        """Give the idle process a call, of which ``on_answer`` tells the end. An outcome when it cannot be given."""

    def ask_to_end(self) -> bool:
        """Ask for an orderly end, after the call in progress. False when only a signal can do that."""

    async def close(self) -> None:
        """The process is gone, or was never started. Idempotent."""


MakeChannel = Callable[[Listener], Channel]
