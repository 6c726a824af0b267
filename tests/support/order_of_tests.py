"""The order of tests. Those of real processes wait for most of their time, and the simulator computes for all of its:
one after the other they would leave cores idle first, and let workers queue for cores then. So they run side by side.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_TESTS = Path(__file__).parent.parent
_WAIT, _COMPUTE = _TESTS / "e2e", _TESTS / "simulation"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    waiting, computing = ([item for item in items if item.path.is_relative_to(folder)] for folder in (_WAIT, _COMPUTE))
    first = items.index(computing[0]) if computing else len(items)
    places = {item: 0.0 if number < first else 2.0 for number, item in enumerate(items)}
    for group in (waiting, computing):
        places |= {item: 1.0 + number / len(group) for number, item in enumerate(group)}
    items.sort(key=places.__getitem__)
