"""``import consumer`` in a worker process: the names for authors of handlers, in any interpreter.

A module or package of the user's with this name wins, also a folder without ``__init__.py``, which Python itself ranks
behind every real package: it is looked for first, everywhere but where the daemon lies. Where the daemon is installed
its own package is found next; elsewhere the names are given by the finder that is asked last. Either way the types are
those of the call (``consumer/__init__.py``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from types import ModuleType

_NAME = "consumer"
_FOLDER = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))  # noqa: PTH118, PTH120  # sys.path is text


class _UsersOwn:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The user's module or package, if there is one."""
        if name != _NAME:
            return None
        return PathFinder.find_spec(name, [entry for entry in sys.path if not _is_the_daemons(entry)])


def _is_the_daemons(entry: str) -> bool:
    return os.path.realpath(os.path.join(entry, _NAME)) == _FOLDER  # noqa: PTH118  # an entry may be any text


class _PublicNames:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The public names alone: nothing of the daemon can be imported from there."""
        if name != _NAME:
            return None
        file = os.path.join(_FOLDER, "__init__.py")  # noqa: PTH118  # as above
        return spec_from_file_location(name, file, submodule_search_locations=None)


def install() -> None:
    """Let user code import them."""
    sys.meta_path.insert(0, _UsersOwn())
    sys.meta_path.append(_PublicNames())
