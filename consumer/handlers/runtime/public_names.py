"""``import consumer`` in a worker process: the names for authors of handlers, in any interpreter.

A module or package of the user's with this name wins, because this finder is asked last. Where the daemon is installed,
its own package is found first; it asks for the same types (``consumer/__init__.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_NAME = "consumer"
_FILE = Path(__file__).resolve().parents[2] / "__init__.py"


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The public names alone: nothing of the daemon can be imported from there."""
        return spec_from_file_location(name, _FILE, submodule_search_locations=None) if name == _NAME else None


def install() -> None:
    """Let user code import them."""
    sys.meta_path.append(_Finder())
