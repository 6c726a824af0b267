"""What ``on_failure.order`` needs of other options when later records of a key must not overtake a dead letter."""

from __future__ import annotations

from collections.abc import Iterator

from consumer.settings.model import Settings
from consumer.settings.rule import Rule, Violation

_PATH = "on_failure.order"


def _destination(settings: Settings) -> Iterator[Violation]:
    chosen = settings.on_failure
    if chosen.order == "continue":
        return
    kind = chosen.destination_kind
    if kind is None:
        yield Violation(
            _PATH,
            f"{chosen.order} needs on_failure.destination",
            "the records of a parked key are kept there: name s3://bucket/prefix, or the ARN of an SQS queue",
        )
    elif kind == "sns":
        yield Violation(
            _PATH,
            f"cannot be {chosen.order} with an SNS topic",
            "what follows a parked key must be read again: use s3://bucket/prefix, or the ARN of an SQS queue",
        )


def _format(settings: Settings) -> Iterator[Violation]:
    chosen = settings.on_failure
    if chosen.order != "continue" and chosen.format == "lambda" and chosen.destination_kind != "s3":
        yield Violation(
            _PATH,
            f"{chosen.order} needs on_failure.format: full, found lambda",
            "Lambda's messages hold no records, and these are to be handled again, in order",
        )


def _one_key(settings: Settings) -> Iterator[Violation]:
    order, batch = settings.on_failure.order, settings.batch
    if order == "continue":
        return
    if batch.tumbling_window:
        yield Violation(
            _PATH,
            f"cannot be {order} with batch.tumbling_window",
            "a window has one order for all keys: use order: continue",
        )
    elif batch.order != "key":
        yield Violation(
            _PATH,
            f"{order} needs batch.order: key, found {batch.order}",
            "with order: shard a failing batch holds up the whole shard, so nothing overtakes it until it is given up",
        )


def _bisect(settings: Settings) -> Iterator[Violation]:
    order = settings.on_failure.order
    if order != "continue" and not settings.retry.bisect_on_error:
        yield Violation(
            _PATH,
            f"{order} needs retry.bisect_on_error: true",
            "records of the key before the one that fails would be given up with it",
        )


ORDER_RULES: tuple[Rule, ...] = (
    Rule((_PATH, "on_failure.destination"), _destination),
    Rule((_PATH, "on_failure.destination", "on_failure.format"), _format),
    Rule((_PATH, "batch.order", "batch.tumbling_window"), _one_key),
    Rule((_PATH, "retry.bisect_on_error"), _bisect),
)


def _memory_of_a_queue(settings: Settings) -> Iterator[Violation]:
    chosen = settings.on_failure
    if chosen.order != "continue" and chosen.destination_kind == "sqs":
        yield Violation(
            _PATH,
            f"{chosen.order} keeps records in an SQS queue, which forgets them after 14 days at most and lists none",
            "s3://bucket/prefix keeps them as long as you want, in order",
        )


ORDER_WARNINGS: tuple[Rule, ...] = (Rule((_PATH, "on_failure.destination"), _memory_of_a_queue),)
