"""Rules that concern more than one key, and what this version cannot do yet.

They are tables of functions over finished settings, not pydantic validators, because pydantic skips a model's
validators as soon as one of its keys is wrong, and these would then be seen only in the second run. The loader runs
every rule none of whose keys is itself wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from operator import attrgetter

from consumer.domain.filters.filters import filter_problems
from consumer.domain.target_name import split_target
from consumer.domain.urls import secret_of
from consumer.settings.errors import Refused
from consumer.settings.kinds import require_http_url
from consumer.settings.model import Settings
from consumer.settings.order_rules import ORDER_RULES, ORDER_WARNINGS
from consumer.settings.redact_rules import REDACT_RULES, REDACT_WARNINGS
from consumer.settings.rule import Rule, Violation
from consumer.settings.source_rules import SOURCE_RULES, SOURCE_WARNINGS
from consumer.settings.units import format_duration


def _target(settings: Settings) -> Iterator[Violation]:
    target, kind = settings.handler.target, settings.handler.kind
    if settings.handler.command:
        yield from _command(settings)
        return
    if not target:
        yield Violation("handler.target", "is required", "for example myapp.handlers:handler; or handler.command")
        return
    if kind == "http":
        try:
            require_http_url(secret_of(target))
        except Refused as error:
            yield Violation("handler.target", f"{error.message} for kind http")
        return
    hint = _wrong_in_target(target, kind)
    if hint:
        yield Violation("handler.target", f"must be module:attribute for kind {kind}", hint)


def _command(settings: Settings) -> Iterator[Violation]:
    handler = settings.handler
    if handler.kind != "lambda":
        yield Violation("handler.command", f"needs handler.kind lambda, found {handler.kind}", "it is run as in Lambda")
    if handler.target:
        hint = "remove one of them; a runtime takes its handler as an argument, or from the variable _HANDLER"
        yield Violation("handler.command", "cannot be used together with handler.target", hint)
    if handler.program is None:
        hint = "give its whole path, or one from handler.path on, such as ./bootstrap"
        yield Violation("handler.command", f"there is no program {handler.command[0]!r} that can be run", hint)


def _wrong_in_target(target: str, kind: str) -> str:
    """What to write instead; empty when it names a function. Without a colon it is the Handler of a Lambda function."""
    if "://" in target:
        return "a URL needs kind: http"
    module, colon, _ = target.partition(":")
    if module.endswith(".py") or target.startswith(("/", "./", "../")):
        return "name the module as in an import, not its file; it is looked for in handler.path"
    try:
        split_target(target)
    except ValueError:
        return "for example myapp.handlers:handler"
    if not colon and kind != "lambda":
        return "write {}:{}".format(*target.rpartition(".")[::2])
    return ""


def _python(settings: Settings) -> Iterator[Violation]:
    handler = settings.handler
    if handler.python is None:
        return
    if handler.command or handler.kind == "http":
        hint = "handler.command names its interpreter itself" if handler.command else "remove it"
        yield Violation("handler.python", "is for the built-in lambda and python kinds", hint)
    elif handler.isolation == "inline":
        yield Violation(
            "handler.python", "needs handler.isolation: process", "an inline handler runs in the daemon's interpreter"
        )


def _isolation(settings: Settings) -> Iterator[Violation]:
    handler = settings.handler
    if handler.kind == "lambda" and handler.isolation == "inline":
        yield Violation("handler.isolation", "must be process for kind lambda, found 'inline'", "use kind: python")


def _backoff(settings: Settings) -> Iterator[Violation]:
    backoff = settings.retry.backoff
    if backoff.initial > backoff.max:
        longest, found = format_duration(backoff.max), format_duration(backoff.initial)
        message = f"must not be longer than retry.backoff.max ({longest}), found {found}"
        yield Violation("retry.backoff.initial", message)


def _tumbling_window(settings: Settings) -> Iterator[Violation]:
    path, batch = "batch.tumbling_window", settings.batch
    if batch.tumbling_window == 0:
        return
    if batch.tumbling_window % 1:
        found = format_duration(batch.tumbling_window)
        yield Violation(path, f"must be whole seconds, found {found}", "records have no finer time")
    elif batch.parallelization_factor > 1:
        yield Violation(
            path,
            f"cannot be used with parallelization_factor {batch.parallelization_factor}",
            "a window's state has one order; Lambda refuses it, too: set batch.parallelization_factor: 1",
        )
    elif not settings.handler.takes_windows:
        yield Violation(
            path,
            "needs handler.kind lambda or http, found python",
            "state travels in Lambda's event and response; a python handler keeps its own",
        )


def _batch_order(settings: Settings) -> Iterator[Violation]:
    batch = settings.batch
    if batch.order == "shard" and batch.parallelization_factor > 1:
        yield Violation(
            "batch.order",
            f"cannot be shard with parallelization_factor {batch.parallelization_factor}",
            "one batch at a time has one order: set batch.parallelization_factor: 1, or order: key",
        )


def _recycling(settings: Settings) -> Iterator[Violation]:
    handler = settings.handler
    inline = handler.kind == "python" and handler.isolation == "inline"
    if handler.recycles and (handler.kind == "http" or inline):
        yield Violation(
            "handler.max_calls" if handler.max_calls else "handler.max_memory",
            "needs worker processes, and this handler has none",
            "remove it" + (", or set handler.isolation: process" if inline else ""),
        )


def _filters(settings: Settings) -> Iterator[Violation]:
    for error in filter_problems(settings.filters):
        yield Violation(error.path, error.problem)


def _lambda_format(settings: Settings) -> Iterator[Violation]:
    chosen = settings.on_failure
    if chosen.format == "lambda" and chosen.destination_kind in ("sqs", "sns") and chosen.overflow is None:
        yield Violation(
            "on_failure.format",
            f"must be full for {chosen.destination_kind.upper()} without on_failure.overflow, found 'lambda'",
            "Lambda's messages do not hold the records; set overflow: s3://bucket/prefix to keep them",
        )


def _no_overflow(settings: Settings) -> Iterator[Violation]:
    chosen = settings.on_failure
    limit = {"sqs": "1 MiB, or less if the queue says so", "sns": "256 KiB"}.get(chosen.destination_kind or "")
    if limit and chosen.overflow is None:
        yield Violation(
            "on_failure.destination",
            f"takes at most {limit}: without on_failure.overflow larger dead letters are compressed, split, or kept in"
            " the lease table",
            "set overflow: s3://bucket/prefix to have their records in one place",
        )


def _nowhere(settings: Settings) -> Iterator[Violation]:
    if settings.on_failure.destination is None:
        yield Violation(
            "on_failure.destination",
            "is not set: a record that is given up, at the latest when it expires, leaves a trace and no copy",
            "set a queue, a topic or s3://bucket/prefix",
        )


def _cut_off(settings: Settings) -> Iterator[Violation]:
    timeout, grace = settings.handler.timeout, settings.shutdown.grace
    chosen = "timeout" in settings.handler.model_fields_set or "grace" in settings.shutdown.model_fields_set
    if chosen and timeout > grace:
        yield Violation(
            "handler.timeout",
            f"is longer than shutdown.grace ({format_duration(grace)}): a stop cuts such a call off, and its records"
            " come again",
            "raise shutdown.grace, and what the scheduler waits for (stopTimeout, terminationGracePeriodSeconds)",
        )


def _tracing(settings: Settings) -> Iterator[Violation]:
    if not settings.tracing.enabled:
        return
    try:
        installed = find_spec("opentelemetry.sdk") and find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:  # not even what they are in
        installed = None
    if installed is None:
        hint = "pip install 'dynamodb-stream-consumer[otel]'"
        yield Violation("tracing.enabled", "needs OpenTelemetry, which is not installed", hint)


RULES: tuple[Rule, ...] = (
    Rule(("filters",), _filters),  # what a filter may say does not depend on filter_options
    *SOURCE_RULES,
    Rule(("handler.kind", "handler.target", "handler.command", "handler.path"), _target),
    Rule(("handler.kind", "handler.command", "handler.python", "handler.isolation"), _python),
    Rule(("handler.kind", "handler.isolation"), _isolation),
    Rule(("handler.kind", "handler.isolation", "handler.max_calls", "handler.max_memory"), _recycling),
    Rule(("retry.backoff.initial", "retry.backoff.max"), _backoff),
    Rule(("on_failure.format", "on_failure.destination", "on_failure.overflow"), _lambda_format),
    *ORDER_RULES,
    *REDACT_RULES,
    Rule(("tracing.enabled",), _tracing),
    Rule(("batch.order", "batch.parallelization_factor"), _batch_order),
    Rule(("batch.tumbling_window", "batch.parallelization_factor", "handler.kind"), _tumbling_window),
)


WARNINGS: tuple[Rule, ...] = (
    Rule(("on_failure.destination", "on_failure.overflow"), _no_overflow),
    Rule(("on_failure.destination",), _nowhere),
    *ORDER_WARNINGS,
    *SOURCE_WARNINGS,
    *REDACT_WARNINGS,
    Rule(("handler.timeout", "shutdown.grace"), _cut_off),
)
"""What works and may surprise."""


def _not_built(path: str, values: tuple[str, ...], feature: str, instead: str) -> Rule:
    """A feature that is silently ignored loses data quietly, so it is refused. Building it means deleting its row."""
    violation = Violation(path, f"{feature} not supported yet", instead)
    setting = attrgetter(path)
    return Rule((path,), lambda settings: [violation] if setting(settings) in values else [])


UNSUPPORTED: tuple[Rule, ...] = (_not_built("idempotency.mode", ("ledger",), "ledger is", "use mode: frontier"),)
