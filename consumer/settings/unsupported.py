"""What the configuration can say but this version cannot do yet.

A feature that is silently ignored loses data quietly, so each one is refused. Building a feature means
deleting its row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Unsupported:
    """One row: the key (dotted), whether its value asks for the feature, its name, what to use instead."""

    path: str
    asks: Callable[[Any], bool]
    feature: str
    instead: str

    @property
    def message(self) -> str:
        return f"{self.feature} not supported yet"


def _equals(wanted: str) -> Callable[[Any], bool]:
    return lambda value: bool(value == wanted)


def _differs(usual: str) -> Callable[[Any], bool]:
    return lambda value: bool(value != usual)


UNSUPPORTED: tuple[Unsupported, ...] = (
    Unsupported("source.kind", _equals("kinesis"), "kinesis is", "use kind: dynamodb with the table's own stream"),
    Unsupported("on_failure.order", _differs("continue"), "this order is", "use order: continue"),
    Unsupported("idempotency.mode", _equals("ledger"), "ledger is", "use mode: frontier"),
)


def unsupported_in(settings: object) -> list[Unsupported]:
    """The rows whose feature these settings ask for."""
    return [row for row in UNSUPPORTED if row.asks(_value_at(settings, row.path))]


def _value_at(settings: object, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
