"""Rules about `on_failure.redact`: where it could not keep its word, and where it may be taken for more than it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from consumer.settings.model import Settings
from consumer.settings.rule import Rule, Violation

_PATH: Final = "on_failure.redact"
_ABOVE_AN_IMAGE: Final = frozenset({"$", "dynamodb", "Keys", "NewImage", "OldImage"})
_TYPES: Final = frozenset({"S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS"})


def _lambda_format(settings: Settings) -> Iterator[Violation]:
    if settings.on_failure.redact and settings.on_failure.format == "lambda":
        yield Violation(
            _PATH,
            "cannot be used with on_failure.format lambda: Lambda's documents cannot say that something is missing",
            "set format: full",
        )


def _misread_paths(settings: Settings) -> Iterator[Violation]:
    for index, path in enumerate(settings.on_failure.redact):
        first, *others = path.split(".")
        if first in _ABOVE_AN_IMAGE:
            hint = "write what is below NewImage or OldImage, such as address.street"
            yield Violation(f"{_PATH}[{index}]", f"names an attribute {first!r}: paths begin inside of an image", hint)
        elif others and others[-1] in _TYPES:
            hint = f"write {path.rpartition('.')[0]}"
            yield Violation(f"{_PATH}[{index}]", f"ends with an attribute {others[-1]!r}: types are no steps", hint)


def _no_letters(settings: Settings) -> Iterator[Violation]:
    if settings.on_failure.redact and settings.on_failure.destination is None:
        yield Violation(
            _PATH,
            "hides values in logs and on the status page only: no dead letter is sent without on_failure.destination",
            "set a destination, or leave it so",
        )


def _versions_that_are_skipped(settings: Settings) -> Iterator[Violation]:
    order = settings.on_failure.order
    if settings.on_failure.redact and order != "continue":
        yield Violation(
            _PATH,
            f"takes versions away from parked keys (on_failure.order {order}): a redrive can only read the item again,"
            " so of several redacted letters of an item the handler gets one event, with the newest image",
            "leave it so when the newest state is what counts; else encrypt these attributes in the item and redact"
            " nothing",
        )


def _opaque_data(settings: Settings) -> Iterator[Violation]:
    source = settings.source
    if settings.on_failure.redact and source.kind == "kinesis" and source.table is None:
        yield Violation(
            _PATH,
            "is about changes of tables: other records of the stream have data and no attributes, and their dead"
            " letters hold it whole",
            "set source.table to read one table's changes only",
        )


def _output(settings: Settings) -> Iterator[Violation]:
    handler = settings.handler
    if settings.on_failure.redact and handler.kind == "python" and handler.isolation == "inline":
        yield Violation(
            _PATH,
            "does not reach what an inline handler prints or logs itself: that is the daemon's own output",
            "set handler.isolation: process to have it searched",
        )


def _window_state(settings: Settings) -> Iterator[Violation]:
    if settings.on_failure.redact and settings.batch.tumbling_window:
        yield Violation(
            _PATH,
            "does not reach the state of tumbling windows, which is kept in the lease table and in dead letters as the"
            " handler returned it",
            "keep such values out of the state",
        )


REDACT_RULES: Final = (Rule((_PATH, "on_failure.format"), _lambda_format),)
REDACT_WARNINGS: Final = (
    Rule((_PATH,), _misread_paths),
    Rule((_PATH, "on_failure.destination"), _no_letters),
    Rule((_PATH, "on_failure.order"), _versions_that_are_skipped),
    Rule((_PATH, "source.kind", "source.table"), _opaque_data),
    Rule((_PATH, "handler.kind", "handler.isolation"), _output),
    Rule((_PATH, "batch.tumbling_window"), _window_state),
)
