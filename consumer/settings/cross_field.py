"""Rules that concern more than one key.

They are a table of functions over finished settings, not pydantic validators, because pydantic skips a
model's validators as soon as one of its keys is wrong, and then a user would see these only in the second
run. The loader runs every rule none of whose keys is itself wrong.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.domain.filters.filters import filter_problems
from consumer.settings.arns import NameRefused, require_http_url, require_stream_arn, stream_region
from consumer.settings.units import format_duration

if TYPE_CHECKING:
    from consumer.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule: the key to point at (dotted), what is wrong, what to do."""

    path: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """`check` returns what is wrong, one thing or several, or None; it only looks at the keys `reads`."""

    reads: tuple[str, ...]
    check: Callable[[Settings], Violation | list[Violation] | None]

    def broken_by(self, settings: Settings) -> list[Violation]:
        """What is wrong; empty when nothing is."""
        found = self.check(settings)
        return [found] if isinstance(found, Violation) else found or []


def violations(settings: Settings) -> list[Violation]:
    """Whatever breaks a rule."""
    return [found for rule in RULES for found in rule.broken_by(settings)]


def _one_source(settings: Settings) -> Violation | None:
    source = settings.source
    if source.table is not None and source.stream_arn is not None:
        return Violation("source.stream_arn", "cannot be given together with source.table", "keep one of them")
    if source.table is None and source.stream_arn is None:
        return Violation("source", "must have table or stream_arn", "table: NAME reads the table's latest stream")
    return None


def _stream_arn(settings: Settings) -> Violation | None:
    source = settings.source
    if source.stream_arn is None:
        return None
    try:
        require_stream_arn(source.stream_arn, source.kind)
    except NameRefused as error:
        return Violation("source.stream_arn", error.message, error.hint)
    return None


def _region(settings: Settings) -> Violation | None:
    """Emulators take any region, so the rule rests when an endpoint is configured."""
    endpoints = settings.aws.endpoints
    if settings.aws.region is None or endpoints.dynamodb or endpoints.dynamodb_streams or endpoints.kinesis:
        return None
    for path, name in (("source.stream_arn", settings.source.stream_arn), ("source.table", settings.source.table)):
        region = stream_region(name or "")
        if region and region != settings.aws.region:
            return Violation(path, f"is in region {region}, but aws.region is {settings.aws.region}", "make them agree")
    return None


def _target(settings: Settings) -> Violation | None:
    target, kind = settings.handler.target, settings.handler.kind
    if kind == "http":
        try:
            require_http_url(target)
        except NameRefused as error:
            return Violation("handler.target", f"{error.message} for kind http")
        return None
    expected = f"must be module:attribute for kind {kind}"
    if "://" in target:
        return Violation("handler.target", expected, "a URL needs kind: http")
    module, colon, attribute = target.partition(":")
    if not colon:
        head, _, tail = target.rpartition(".")
        hint = f"write {head}:{tail}" if _dotted(head) and _dotted(tail) else "for example myapp.handlers:handler"
        return Violation("handler.target", expected, hint)
    if "/" in module or module.endswith(".py"):
        return Violation("handler.target", expected, "name the module as in an import, not its file")
    if not (_dotted(module) and _dotted(attribute)):
        return Violation("handler.target", expected, "both sides are Python names, for example myapp.handlers:handler")
    return None


def _dotted(name: str) -> bool:
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def _isolation(settings: Settings) -> Violation | None:
    handler = settings.handler
    if handler.kind == "lambda" and handler.isolation == "inline":
        return Violation("handler.isolation", "must be process for kind lambda, found 'inline'", "use kind: python")
    return None


def _backoff(settings: Settings) -> Violation | None:
    backoff = settings.retry.backoff
    if backoff.initial <= backoff.max:
        return None
    longest = format_duration(backoff.max)
    found = format_duration(backoff.initial)
    return Violation("retry.backoff.initial", f"must not be longer than retry.backoff.max ({longest}), found {found}")


def _tumbling_window(settings: Settings) -> Violation | None:
    batch = settings.batch
    if batch.tumbling_window == 0:
        return None
    if batch.tumbling_window % 1:
        found = format_duration(batch.tumbling_window)
        return Violation("batch.tumbling_window", f"must be whole seconds, found {found}", "records have no finer time")
    if batch.parallelization_factor > 1:
        return Violation(
            "batch.tumbling_window",
            f"cannot be used with parallelization_factor {batch.parallelization_factor}",
            "a window's state has one order; Lambda refuses it, too: set batch.parallelization_factor: 1",
        )
    if settings.handler.kind == "python":
        return Violation(
            "batch.tumbling_window",
            "needs handler.kind lambda or http, found python",
            "state travels in Lambda's event and response; a python handler keeps its own",
        )
    return None


def _filters(settings: Settings) -> list[Violation]:
    return [Violation(error.path, error.problem) for error in filter_problems(settings.filters)]


def _lambda_format(settings: Settings) -> Violation | None:
    chosen = settings.on_failure
    if chosen.format == "full" or chosen.destination_kind not in ("sqs", "sns") or chosen.overflow is not None:
        return None
    return Violation(
        "on_failure.format",
        f"must be full for {chosen.destination_kind.upper()} without on_failure.overflow, found 'lambda'",
        "Lambda's messages do not hold the records; set overflow: s3://bucket/prefix to keep them",
    )


RULES: tuple[Rule, ...] = (
    Rule(("filters",), _filters),  # what a filter may say does not depend on filter_options
    Rule(("source.table", "source.stream_arn"), _one_source),
    Rule(("source.kind", "source.stream_arn"), _stream_arn),
    Rule(("source.table", "source.stream_arn", "aws.region", "aws.endpoints"), _region),
    Rule(("handler.kind", "handler.target"), _target),
    Rule(("handler.kind", "handler.isolation"), _isolation),
    Rule(("retry.backoff.initial", "retry.backoff.max"), _backoff),
    Rule(("on_failure.format", "on_failure.destination", "on_failure.overflow"), _lambda_format),
    Rule(("batch.tumbling_window", "batch.parallelization_factor", "handler.kind"), _tumbling_window),
)
