"""The whole configuration as one immutable value: a frozen model for each section, and `Settings`.

Durations are float seconds, sizes int bytes, whatever they were written as. The text below a key gives its unit or
range, its default and the reason, because it is also the documentation in the JSON Schema. Here every key is judged
alone, so that one pass finds every bad key; rules that concern more than one are in `rules.py`. `load.load_settings`
makes settings of a file and `load.settings_from` of a mapping; both apply those rules, too.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from consumer.domain.filters.filters import Filters, compile_filters
from consumer.domain.urls import Url
from consumer.settings.aws_names import (
    TABLE_NAME,
    require_stream,
    require_table,
    table_name,
)
from consumer.settings.kinds import (
    COMMAND_SCHEMA,
    FLAG,
    FLAG_OR_NULL,
    HTTP_URL,
    POSITION,
    StartingPosition,
    command_line,
    directory,
    duration_in,
    interpreter,
    patterns,
    size_in,
    text_like,
    whole_number,
)
from consumer.settings.on_failure import OnFailure
from consumer.settings.section import Section

_DAY = 86400.0
_NAME_IN_ARN = re.compile(r":(?:table|stream)/([^/]+)")
_MIB = 1024**2
_PATH_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}

ApplicationName = Annotated[
    str,
    text_like(
        r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}",
        "must be 1 to 128 of a-z A-Z 0-9 _ . - and start with a letter or digit",
    ),
]
Boolean = Annotated[bool, FLAG]
HttpUrl = Annotated[Url, HTTP_URL]
Patterns = Annotated[tuple[dict[str, Any], ...], BeforeValidator(patterns)]


class Endpoints(Section):
    """Where to reach each AWS service, for emulators and private endpoints. AWS_ENDPOINT_URL* also work."""

    dynamodb: HttpUrl | None = None
    """URL for tables: the lease table and table lookups."""
    dynamodb_streams: HttpUrl | None = None
    """URL for reading DynamoDB Streams."""
    kinesis: HttpUrl | None = None
    """URL for Kinesis Data Streams."""
    sqs: HttpUrl | None = None
    """URL for SQS dead letters."""
    sns: HttpUrl | None = None
    """URL for SNS dead letters."""
    s3: HttpUrl | None = None
    """URL for S3 dead letters and overflow."""

    def secret_urls(self) -> dict[str, str]:
        """The URLs by the names of their services, credentials included; without those for which the SDK itself
        chooses."""
        return {name: url.secret for name, url in self if url is not None}


class Aws(Section):
    """How to reach AWS. Credentials never belong here; the SDK finds them (environment, profile, role)."""

    region: Annotated[str, text_like(r"[A-Za-z0-9-]{1,63}", "must be a region name such as eu-west-1")] | None = None
    """Region of the stream and the lease table. Default: AWS_REGION, then the SDK's own chain (AWS_DEFAULT_REGION,
    profile)."""
    endpoints: Endpoints = Field(default_factory=Endpoints)
    """Service URLs, for emulators. Default: AWS's own."""


class Poll(Section):
    """How a shard is read."""

    max_records: Annotated[int, whole_number(1, 10_000)] = 1000
    """Records per GetRecords call, default 1000. The API's own limits are 1..1000 for dynamodb and 1..10000 for
    kinesis, where more than 1000 are of use when records are small."""
    target_latency: Annotated[float, duration_in(0.2, 300)] = 2.0
    """Duration 200ms..5m, default 2s. 95 of 100 records are read within it, once the worker has learned when records of
    their shard come. Half of it costs up to twice the GetRecords; `stream-consumer cost` shows the trade. Shards
    with much to read are read sooner: up to five times a second, or as soon as there is a page of `max_records`."""
    idle_backoff_max: Annotated[float, duration_in(0.001, 300)] = 5.0
    """Duration 1ms..5m, default 5s. The longest pause between two reads of a shard: while no record is expected, pauses
    grow up to it. Longer is cheaper and adds as much latency to the first record after a quiet time. A shard near its
    tip is read five times a second at most, so less than 200ms counts as 200ms, or as soon as there is a page of
    `max_records`."""


class Source(Section):
    """The stream to consume: exactly one of `table` and `stream_arn`, for kinesis of `stream` and `stream_arn`."""

    kind: Literal["dynamodb", "kinesis"] = "dynamodb"
    """dynamodb (default: a table's own stream) or kinesis (a Kinesis stream, into which DynamoDB puts changes)."""
    table: Annotated[str, AfterValidator(require_table)] | None = None
    """Table name or table ARN. dynamodb: its latest stream is looked up at start. kinesis: only changes of this table
    are read, anything else in the stream is filtered."""
    stream: Annotated[str, AfterValidator(require_stream)] | None = None
    """kinesis only: the name of the stream, in aws.region and the account of the credentials."""
    stream_arn: str | None = None
    """ARN of one particular stream. dynamodb: when it is not the table's latest or must never change. kinesis: instead
    of stream, also one of another account."""
    duplicates: Literal["drop", "keep"] = "drop"
    """kinesis only: drop (default: changes that come again, or after a newer one of their item, are skipped, as far as
    is remembered) or keep."""
    starting_position: Annotated[StartingPosition, POSITION] = "trim_horizon"
    """Where an application without checkpoints starts: trim_horizon (default, the oldest record kept, so nothing is
    missed), latest, or an ISO-8601 time with a zone."""
    on_gap: Literal["halt", "continue"] = "halt"
    """What to do when records were trimmed before they were read: halt (default, so that somebody decides) or continue
    with the oldest record left."""
    poll: Poll = Field(default_factory=Poll)
    """How shards are read."""

    @property
    def name(self) -> str:
        """The name of the table, or of the Kinesis stream when its tables are not told apart: for people."""
        named = self.table or self.stream or self.stream_arn or ""
        resource = _NAME_IN_ARN.search(named)
        return resource[1] if resource else named


_TARGET = text_like(r"(\S(.*\S)?)?", "must be module:attribute, or a URL")


class Handler(Section):
    """The user's code, and how it is run."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["target"]}, {"required": ["command"]}]})

    kind: Literal["lambda", "python", "http"] = "lambda"
    """lambda (default: handler(event, context), unmodified), python (records, context; may be async) or http (POST to a
    URL)."""
    target: Annotated[Url, _TARGET, AfterValidator(Url)] = Field(default_factory=lambda: Url(""))
    """module:attribute for lambda and python, an http(s) URL for http. Required, but with command. For lambda also as
    Lambda's Handler has it, module.attribute. User, password and query of a URL are shown nowhere."""
    command: Annotated[tuple[str, ...], BeforeValidator(command_line), WithJsonSchema(COMMAND_SCHEMA)] = ()
    """lambda only, instead of target: a program, with its arguments, that speaks the Lambda Runtime API, in any
    language. It starts in path; processes of it run side by side."""
    path: Annotated[Path, PlainValidator(directory), WithJsonSchema({"type": "string"})] = Field(
        default=Path(), validate_default=True
    )
    """Existing directory put first on sys.path, relative to this file. Default `.`, the file's own directory.
    PYTHONPATH works too. A lambda handler starts in it, as in Lambda."""
    python: Annotated[Path | None, PlainValidator(interpreter), WithJsonSchema(_PATH_OR_NULL)] = None
    """lambda and python kinds: the Python that runs the code, such as /opt/fn/.venv/bin/python, with its own packages.
    Relative to this file; default: the daemon's own. 3.9 or newer for lambda; for python 3.11 and msgspec."""
    isolation: Literal["process", "inline"] = "process"
    """process (default: a hung or crashing handler is killed and replaced) or inline (in the daemon's own event loop;
    fastest, python only)."""
    processes: Annotated[int, whole_number(1, 256)] = 2
    """Worker processes, 1..256, default 2. Each runs one invocation at a time. Unused when inline."""
    timeout: Annotated[float, duration_in(0.1, _DAY)] = 60.0
    """Duration 100ms..24h, default 60s. An invocation that takes longer is killed and has failed."""
    max_calls: Annotated[int, whole_number(0, 1_000_000_000)] = 0
    """Invocations after which a worker process is replaced, 0..1000000000, default 0 = no limit. One process at a time,
    between two invocations: for code that leaks."""
    max_memory: Annotated[int, size_in(16 * _MIB, 1024 * 1024 * _MIB, or_unlimited=True)] = 0
    """Size 16MiB..1024GiB, default 0 = no limit: a worker process whose resident memory is larger after an invocation
    is replaced in the same way. Linux only."""

    @property
    def program(self) -> Path | None:
        """The file that ``command`` runs, found as the system finds it; None where it cannot be run."""
        if not self.command:
            return None
        found = shutil.which(self.path / self.command[0] if "/" in self.command[0] else self.command[0])
        return Path(found) if found else None

    @property
    def code(self) -> str:
        """What is run, as far as it may be shown."""
        return " ".join(self.command) if self.command else str(self.target)

    @property
    def recycles(self) -> bool:
        """Whether worker processes are replaced now and then."""
        return bool(self.max_calls or self.max_memory)

    @property
    def takes_windows(self) -> bool:
        """Whether calls can carry a tumbling window: its state travels in Lambda's event and response."""
        return self.kind != "python"


class Batch(Section):
    """How records are grouped into invocations."""

    batch_size: Annotated[int, whole_number(1, 10000)] = 100
    """Most records per invocation, 1..10000, default 100 as in Lambda."""
    batching_window: Annotated[float, duration_in(0, 300)] = 0.0
    """Duration 0..300s, default 0: how long to gather a batch that is not full (batch_size records or 6 MB). It starts
    when a batch can start."""
    parallelization_factor: Annotated[int, whole_number(1, 256)] = 8
    """Concurrent batches per shard, 1..256, default 8. A key is in at most one of them, so order per key holds. Lambda
    stops at 10."""
    order: Literal["key", "shard"] = "key"
    """key (default): a failing key holds up nothing but itself. shard: Lambda's order, nothing of the shard overtakes a
    failing batch; needs parallelization_factor: 1. A tumbling window always has the order of its shard."""
    report_batch_item_failures: Annotated[bool | None, FLAG_OR_NULL] = None
    """Whether an answer names failed records in batchItemFailures. Default null: if it does, they have failed, and any
    other answer is a success. true: by Lambda's rules for ReportBatchItemFailures, so a text or number is a failure.
    false, Lambda's default: answers are ignored."""
    tumbling_window: Annotated[float, duration_in(0, 900)] = 0.0
    """Duration 0..900s in whole seconds, default 0 = off: Lambda's tumbling windows. Needs parallelization_factor: 1
    and a lambda or http handler."""


class Backoff(Section):
    """Pauses between attempts: doubling from `initial` to `max`."""

    initial: Annotated[float, duration_in(0.001, 3600)] = 0.2
    """Duration 1ms..1h, default 200ms: before the first retry, about what Lambda does."""
    max: Annotated[float, duration_in(0.001, _DAY)] = 30.0
    """Duration 1ms..24h, default 30s: the pause stops growing here."""


class Retry(Section):
    """What happens after a failed invocation."""

    max_retry_attempts: Annotated[int, whole_number(-1, 10000)] = -1
    """Retries, -1..10000, default -1 = until the record expires. n means n+1 invocations; the count starts anew when
    the shard changes its owner."""
    max_record_age: Annotated[float, duration_in(60, 365 * _DAY, or_forever=True)] = -1.0
    """Duration 1m..365d, or -1 (default) for no limit: older records are not invoked any more."""
    bisect_on_error: Boolean = True
    """true (default): a failed batch is split, so that one bad record fails alone. With batch.order: key it is cut by
    keys in any case, and this is about several records of one key."""
    backoff: Backoff = Field(default_factory=Backoff)
    """Pauses between attempts."""


class Idempotency(Section):
    """How records that were already handled are recognised after a restart or a change of owner."""

    mode: Literal["frontier", "ledger", "off"] = "frontier"
    """frontier (default: what is settled above the checkpoint, kept in the lease row), ledger (a row per record) or
    off."""


class Leases(Section):
    """Who owns which shard."""

    table: Annotated[str, text_like(TABLE_NAME, "must be a table name: 3 to 255 of a-z A-Z 0-9 _ . -")] = (
        "stream-consumer"
    )
    """DynamoDB table for leases and checkpoints; several applications may share it."""
    create_table: Boolean = False
    """Create the table when it is missing, at the start and when it was dropped since. Default false: production roles
    rarely may."""
    duration: Annotated[float, duration_in(1, 300)] = 10.0
    """Duration 1s..300s, default 10s: a worker silent for this long loses its shards. Shorter fails over sooner and
    writes more."""


class Limits(Section):
    """Bounds for the whole process."""

    buffer: Annotated[int, size_in(_MIB, 1024 * 1024 * _MIB)] = 64 * _MIB
    """Size 1MiB..1024GiB, default 64MiB: records read but not yet settled, over all shards. When it is used up, a
    shard that holds little still gets a page."""
    max_shards: Annotated[int, whole_number(0, 100_000)] = 0
    """Most shards this process takes, 0..100000, default 0 = no limit."""


class Checkpoint(Section):
    """How often progress is written."""

    interval: Annotated[float, duration_in(0.001, 3600)] = 1.0
    """Duration 1ms..1h, default 1s: between two checkpoint writes of a shard, at least. What is settled is written at
    once when the last write is older, so a crash repeats what was settled in one interval at most."""


class Shutdown(Section):
    """What happens at SIGTERM."""

    grace: Annotated[float, duration_in(0, _DAY)] = 25.0
    """Duration 0..24h, default 25s: to finish batches; below the 30s that ECS and Kubernetes give."""


class Http(Section):
    """The server for health, metrics and the status page."""

    host: Annotated[str, text_like(r"[^\s/]{1,253}", "must be a host name or address")] = "127.0.0.1"
    """Address to listen on. Default 127.0.0.1; 0.0.0.0 in a container."""
    port: Annotated[int, whole_number(0, 65535)] = 9464
    """Port, 0..65535, default 9464; 0 takes any free one."""
    show_errors: Boolean = False
    """true: the status page also shows the texts of errors, which may hold data of items, as those of handlers do.
    Default false: their type, place and number."""


class Logging(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level. Default info."""
    format: Literal["console", "json"] = "json"
    """json (default, one object a line) or console."""
    emf: Boolean = False
    """true: every minute a line with metrics in CloudWatch's embedded metric format, of which CloudWatch Logs makes
    metrics, for ECS without a scraper. Default false: each name is a metric that is paid for."""


class Tracing(Section):
    """OpenTelemetry spans. Where they go and which are sampled is said by OTEL_* variables."""

    enabled: Boolean = False
    """true: a span for every read with records, handler call, checkpoint and dead letter, by OTLP over HTTP. Needs the
    extra otel. Default false."""


class FilterOptions(Section):
    """Where filters go beyond Lambda's. All of it is off until it is asked for."""

    numeric_on_n: Boolean = False
    """true: the operator numeric also compares DynamoDB numbers (N and NS), exactly. Default false: they are text, and
    numeric never matches them, as in Lambda."""


class Settings(Section):
    """Configuration of stream-consumer. Durations are 250ms, 10s, 5m, 24h; sizes are 64KiB, 4MiB."""

    application: ApplicationName
    """Names this consumer, 1 to 128 characters. Replicas with the same name share the work; it is the namespace of
    every lease row, so renaming starts afresh. Required."""
    aws: Aws = Field(default_factory=Aws)
    """How to reach AWS."""
    source: Source
    """The stream to consume. Required."""
    handler: Handler
    """The code that handles records. Required."""
    batch: Batch = Field(default_factory=Batch)
    """How records are grouped into invocations."""
    filters: Patterns = ()
    """EventBridge patterns over the whole event; a record that matches none is skipped. Default []. A
    text is taken for the list in JSON, so that a variable can hold it."""
    filter_options: FilterOptions = Field(default_factory=FilterOptions)
    """Where filters go beyond Lambda's."""
    retry: Retry = Field(default_factory=Retry)
    """What happens after a failed invocation."""
    on_failure: OnFailure = Field(default_factory=OnFailure)
    """Where records go that are given up."""
    idempotency: Idempotency = Field(default_factory=Idempotency)
    """How records already handled are recognised."""
    leases: Leases = Field(default_factory=Leases)
    """Who owns which shard."""
    limits: Limits = Field(default_factory=Limits)
    """Bounds for the whole process."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """How often progress is written."""
    shutdown: Shutdown = Field(default_factory=Shutdown)
    """What happens at SIGTERM."""
    http: Http = Field(default_factory=Http)
    """Health, metrics and status page."""
    logging: Logging = Field(default_factory=Logging)
    """What is logged, and how."""
    tracing: Tracing = Field(default_factory=Tracing)
    """OpenTelemetry spans, off by default."""

    def compiled_filters(self) -> Filters:
        """``filters`` ready to run, with their options and the table that Kinesis records have to be of. PatternError,
        which a loaded configuration never gives."""
        source = self.source
        only = table_name(source.table) if source.kind == "kinesis" and source.table is not None else None
        return compile_filters(self.filters, numeric_on_numbers=self.filter_options.numeric_on_n, table=only)
