"""What a process is doing, for its log: the stacks of its threads and, by what they wait for, of its asyncio tasks.

Names of functions and lines of files only, no values: those of user code may hold items. Everything is bounded, and
safe to call from another thread than the one whose loop it describes.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

MOST_THREADS: Final = 64
MOST_GROUPS: Final = 100
MOST_FRAMES: Final = 25  # of a stack: the innermost ones
MOST_NAMES: Final = 3  # of the tasks of a group
_OWN_PACKAGE: Final = "consumer"

Report = dict[str, Any]


def threads() -> list[Report]:
    """One report for each thread: its name, and its stack, outermost frame first. Names of user code's are left
    out."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    reports: list[Report] = []
    for ident, innermost in list(sys._current_frames().items())[:MOST_THREADS]:  # noqa: SLF001 - the documented way
        frame: FrameType | None = innermost
        stack: list[str] = []
        is_own = ident == main
        while frame is not None:
            if len(stack) < MOST_FRAMES:
                stack.append(_place(frame, frame.f_lineno))
            if frame.f_globals.get("__name__") != threading.__name__:  # the outermost ones of every thread
                is_own = ident == main or _is_own(frame)
            frame = frame.f_back
        reports.append({"name": names.get(ident, "") if is_own else "", "stack": stack[::-1]})
    return reports


def task_groups(loop: asyncio.AbstractEventLoop) -> list[Report]:
    """The tasks of a loop, those that wait at the same place together: their number, that place, and the names of some.
    Rare ones first: what hangs is seldom what there are a thousand of. Names of user code's tasks are left out."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for task in asyncio.all_tasks(loop):
        frames = list(_awaiting(task.get_coro()))
        stack = tuple(_place(frame, frame.f_lineno) for frame in frames[-MOST_FRAMES:])
        names = groups.setdefault(stack, [])
        names.append(task.get_name() if frames and _is_own(frames[0]) else "")
    rare_first = sorted(groups.items(), key=lambda group: len(group[1]))
    return [
        {"count": len(names), "stack": list(stack), "names": sorted(name for name in names if name)[:MOST_NAMES]}
        for stack, names in rare_first[:MOST_GROUPS]
    ]


def _awaiting(awaitable: Any) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, outermost first. One that runs shows its outermost frame only; the rest is
    in the stack of its thread."""
    while awaitable is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
                break
        else:
            return


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _OWN_PACKAGE


def _place(frame: FrameType, line: int | None) -> str:
    """``worker/shard/reader.py:201 in ShardReader._pause``: the file by the end of its path."""
    code = frame.f_code
    return f"{'/'.join(PurePath(code.co_filename).parts[-3:])}:{line or 0} in {code.co_qualname}"
