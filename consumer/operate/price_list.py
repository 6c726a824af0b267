"""The list prices that this build knows: ``prices.json``, the one place where they are, with their date."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from consumer.domain.prices import Prices


@cache
def list_prices() -> Prices:
    return Prices(**json.loads(files("consumer.operate").joinpath("prices.json").read_text(encoding="utf-8")))
