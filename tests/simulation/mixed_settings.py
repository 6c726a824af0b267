"""Settings of one replica beside others, as rolling deploys of another configuration have them."""

from __future__ import annotations

import random
from typing import Any

DURATIONS = ("10s", "10s", "20s", "40s")
LONGEST = 40.0  # seconds


def draw(rng: random.Random) -> dict[str, Any]:
    """Sections of a configuration file."""
    return {
        "leases": {"duration": rng.choice(DURATIONS)},
        "batch": {
            "batch_size": rng.choice((100, 1000)),  # with fewer a slow key would need more time than there is
            "parallelization_factor": rng.choice((1, 2, 8)),
            "batching_window": rng.choice(("0s", "0s", "1s")),
        },
        "checkpoint": {"interval": rng.choice(("1s", "5s", "10s"))},
        "filters": rng.choice(([], [{"eventName": ["INSERT", "MODIFY"]}])),  # nothing is ever deleted
    }
