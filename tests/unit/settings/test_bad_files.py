"""Every kind of bad value: one line each, with its line number, what is allowed, and what to do.

The cases start with three good lines (`BASE`), so the first line of each case is line 4.
"""

from __future__ import annotations

import pytest

from tests.unit.settings.conftest import Problems

BASE = "application: app\nsource: {table: orders}\nhandler: {target: 'app:handler'}\n"
STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-31T12:00:00.000"

VALUES = [
    # unknown and misplaced keys
    ("bacth: {}", "c.yaml:4: bacth: unknown key (did you mean batch?)"),
    ("batch:\n  batch_sise: 5", "c.yaml:5: batch.batch_sise: unknown key (did you mean batch_size?)"),
    ("batch: {BatchSize: 5}", "c.yaml:4: batch.BatchSize: unknown key (did you mean batch_size?)"),
    ("batch_size: 5", "c.yaml:4: batch_size: unknown key (did you mean batch.batch_size?)"),
    ("timeout: 5s", "c.yaml:4: timeout: unknown key (did you mean handler.timeout?)"),
    (
        "MaximumRecordAgeInSeconds: 60",
        "c.yaml:4: MaximumRecordAgeInSeconds: unknown key (did you mean retry.max_record_age?)",
    ),
    ("http: {zzz: 1}", "c.yaml:4: http.zzz: unknown key (allowed here: host, port, show_errors)"),
    ("on: 1", "c.yaml:4: on: unknown key"),
    ("'a\\nb': 1", "c.yaml:4: 'a\\\\nb': unknown key"),
    (
        "batch: &b {}\nretry: {<<: *b}",
        "c.yaml:5: retry.'<<': unknown key (merge keys are not supported; repeat the values)",
    ),
    ("aws: {endpoints: {lambda: http://x}}", "c.yaml:4: aws.endpoints.lambda: unknown key (allowed here: dynamodb,"),
    # duplicates
    ("http: {port: 1, port: 2}", "c.yaml:4: http.port: duplicate key, first given on line 4 (keep one of them)"),
    ("http:\n  port: 1\n  port: 2", "c.yaml:6: http.port: duplicate key, first given on line 5 (keep one of them)"),
    ("application: again", "c.yaml:4: application: duplicate key, first given on line 1 (keep one of them)"),
    # wrong types and the traps of YAML 1.1
    ("batch: {batch_size: many}", "c.yaml:4: batch.batch_size: must be a whole number from 1 to 10000, found 'many'"),
    ("batch: {batch_size: '5'}", "must be a whole number from 1 to 10000, found '5' (remove the quotes)"),
    ("batch: {batch_size: true}", "must be a whole number from 1 to 10000, found true"),
    ("batch: {batch_size: 1.5}", "must be a whole number from 1 to 10000, found 1.5"),
    ("batch: {batch_size: 1e5}", "must be a whole number from 1 to 10000, found 1e5"),
    ("batch: {batch_size: .nan}", "must be a whole number from 1 to 10000, found .nan"),
    ("batch: {batch_size: }", "must be a whole number from 1 to 10000, found nothing"),
    ("batch: {batch_size: [1]}", "must be a whole number from 1 to 10000, found a list"),
    (
        "batch: {bisect: 1}\nretry: {bisect_on_error: yes}",
        "c.yaml:5: retry.bisect_on_error: must be true or false, found 'yes'",
    ),
    ("retry: {bisect_on_error: on}", "must be true or false, found 'on'"),
    ("retry: {bisect_on_error: 1}", "must be true or false, found 1"),
    ("leases: {table: 1e3}", "c.yaml:4: leases.table: must be text, found 1e3 (put it in quotes)"),
    ("http: {host: 010}", "c.yaml:4: http.host: must be text, found 010 (put it in quotes)"),
    ("batch: 5", "c.yaml:4: batch: must be a mapping of keys to values, found 5"),
    ("retry: [1, 2]", "c.yaml:4: retry: must be a mapping of keys to values, found a list"),
    ("filters: {a: 1}", "c.yaml:4: filters: must be a list, found a mapping"),
    ("filters: [text]", "c.yaml:4: filters[0]: must be a mapping of keys to values, found 'text'"),
    (
        "logging:\n  level: WARN",
        "c.yaml:5: logging.level: must be debug, info, warning or error, found 'WARN' (did you mean warning?)",
    ),
    ("logging: {format: xml}", "c.yaml:4: logging.format: must be console or json, found 'xml'"),
    # ranges
    ("batch: {batch_size: 0}", "must be a whole number from 1 to 10000, found 0"),
    ("batch: {parallelization_factor: 257}", "must be a whole number from 1 to 256, found 257"),
    ("retry: {max_retry_attempts: -2}", "must be a whole number from -1 to 10000, found -2"),
    ("http: {port: 65536}", "must be a whole number from 0 to 65535, found 65536"),
    ("limits: {max_shards: -1}", "limits.max_shards: must be a whole number from 0 to 100000, found -1"),
    # durations
    (
        "checkpoint: {interval: 5}",
        (
            "checkpoint.interval: must be a duration such as 250ms, 10s, 5m or 24h; the range "
            "is 1ms to 1h, found 5 (add a unit: 5s or 5ms)"
        ),
    ),
    (
        "checkpoint: {interval: 12:30}",
        "must be a duration such as 250ms, 10s, 5m or 24h; the range is 1ms to 1h, found '12:30'",
    ),
    ("checkpoint: {interval: 5sec}", "found '5sec' (units are ms, s, m, h, d)"),
    ("checkpoint: {interval: 5S}", "found '5S' (write s, not S)"),
    ("checkpoint: {interval: -5s}", "checkpoint.interval: must not be negative; the range is 1ms to 1h, found '-5s'"),
    ("checkpoint: {interval: 0}", "checkpoint.interval: must be from 1ms to 1h, found 0"),
    (
        "checkpoint: {interval: .inf}",
        "must be a duration such as 250ms, 10s, 5m or 24h; the range is 1ms to 1h, found .inf",
    ),
    (
        "checkpoint: {interval: true}",
        "must be a duration such as 250ms, 10s, 5m or 24h; the range is 1ms to 1h, found true",
    ),
    (
        "checkpoint: {interval: }",
        "must be a duration such as 250ms, 10s, 5m or 24h; the range is 1ms to 1h, found nothing",
    ),
    ("leases: {duration: 301s}", "leases.duration: must be from 1s to 5m, found '301s'"),
    ("retry: {max_record_age: 59s}", "retry.max_record_age: must be from 1m to 8760h, or -1 for no limit, found '59s'"),
    ("retry: {max_record_age: 0}", "retry.max_record_age: must be from 1m to 8760h, or -1 for no limit, found 0"),
    (
        "retry: {max_record_age: -2}",
        "retry.max_record_age: must not be negative; the range is 1m to 8760h, or -1 for no limit, found -2",
    ),
    ("batch: {batching_window: 301s}", "batch.batching_window: must be from 0s to 5m, found '301s'"),
    # sizes
    (
        "limits: {buffer: 64}",
        (
            "limits.buffer: must be a size such as 64KiB, 4MiB or 1GiB; the range is 1MiB to 1024GiB, "
            "found 64 (add a unit: KiB, MiB or GiB)"
        ),
    ),
    ("limits: {buffer: 64MB}", "found '64MB' (write MiB, not MB)"),
    ("limits: {buffer: 1KiB}", "limits.buffer: must be from 1MiB to 1024GiB, found '1KiB'"),
    (
        "limits: {buffer: true}",
        "limits.buffer: must be a size such as 64KiB, 4MiB or 1GiB; the range is 1MiB to 1024GiB, found true",
    ),
    # AWS names
    (
        "on_failure: {destination: kafka://topic}",
        "an SNS ARN or s3://bucket/prefix, found 'kafka://topic' (Kafka destinations are not offered)",
    ),
    (
        "on_failure: {destination: 'arn:aws:sqs:eu-west-1:1:q.fifo'}",
        "must be a standard SQS destination, found a FIFO one (Lambda refuses FIFO destinations too)",
    ),
    ("on_failure: {destination: 'arn:aws:s3:::bucket'}", "(write s3://bucket)"),
    ("on_failure: {destination: https://sqs.eu-west-1.amazonaws.com/1/q}", "(give the queue's ARN, not its URL)"),
    ("on_failure: {overflow: bucket}", "on_failure.overflow: must be s3://bucket/prefix, found 'bucket'"),
    ("leases: {table: ab}", "leases.table: must be a table name: 3 to 255 of a-z A-Z 0-9 _ . -, found 'ab'"),
    # endpoints and credentials
    (
        "aws: {endpoints: {sqs: 127.0.0.1:9324}}",
        "aws.endpoints.sqs: must be an http:// or https:// URL with a host, found '127.0.0.1:9324'",
    ),
    ("aws: {endpoints: {s3: 'http://'}}", "aws.endpoints.s3: must be an http:// or https:// URL with a host"),
    ("aws: {endpoints: {s3: 'http://h:99999'}}", "aws.endpoints.s3: must be an http:// or https:// URL with a host"),
    (
        "aws: {secret_access_key: s3cr3t}",
        "c.yaml:4: aws.secret_access_key: credentials do not belong in this file (the SDK's own chain",
    ),
    ("aws: {AWS_ACCESS_KEY_ID: AKIA}", "c.yaml:4: aws.AWS_ACCESS_KEY_ID: credentials do not belong in this file"),
    ("password: x", "c.yaml:4: password: credentials do not belong in this file"),
    # between keys
    (
        "retry: {backoff: {initial: 1m, max: 10s}}",
        "c.yaml:4: retry.backoff.initial: must not be longer than retry.backoff.max (10s), found 1m",
    ),
    (
        "batch: {order: shard}",
        "c.yaml:4: batch.order: cannot be shard with parallelization_factor 8 (one batch at a time has one order",
    ),
    (
        "batch: {tumbling_window: 5s}",
        "batch.tumbling_window: cannot be used with parallelization_factor 8 (a window's state has one order",
    ),
    (
        "batch: {tumbling_window: 1500ms, parallelization_factor: 1}",
        "c.yaml:4: batch.tumbling_window: must be whole seconds, found 1500ms (records have no finer time)",
    ),
    # not built yet
    ("filters:\n- eventName: [INSERT]\n- eventName: INSERT", "c.yaml:6: filters[1].eventName: must be an array"),
    (
        "on_failure:\n  destination: arn:aws:sqs:eu-west-1:1:q\n  format: lambda",
        "c.yaml:6: on_failure.format: must be full for SQS without on_failure.overflow, found 'lambda' (",
    ),
    ("on_failure: {format: Lambda}", "must be full or lambda, found 'Lambda' (did you mean lambda?)"),
    ("filter_options: {numeric_on_n: 1}", "filter_options.numeric_on_n: must be true or false, found 1"),
    ("filter_options: {numeric: true}", "filter_options.numeric: unknown key (did you mean numeric_on_n?)"),
    ("filters: [{a: [{numeric: ['>', x]}]}]\nfilter_options: {numeric_on_n: 1}", "c.yaml:4: filters[0].a[0].numeric"),
    ("on_failure: {order: block}", "on_failure.order: block needs on_failure.destination (the records of a parked key"),
    ("on_failure: {order: park_key}", "on_failure.order: park_key needs on_failure.destination ("),
    (
        "on_failure: {order: park_key, destination: 'arn:aws:sns:eu-west-1:1:t'}",
        "on_failure.order: cannot be park_key with an SNS topic (what follows a parked key must be read again",
    ),
    (
        "on_failure: {order: park_key, destination: 'arn:aws:sqs:eu-west-1:1:q', overflow: 's3://b', format: lambda}",
        "on_failure.order: park_key needs on_failure.format: full, found lambda",
    ),
    (
        "on_failure: {order: park_key, destination: 's3://b'}\nbatch: {order: shard, parallelization_factor: 1}",
        "on_failure.order: park_key needs batch.order: key, found shard",
    ),
    (
        "on_failure: {order: block, destination: 's3://b'}\nbatch: {tumbling_window: 5s, parallelization_factor: 1}",
        "on_failure.order: cannot be block with batch.tumbling_window",
    ),
    (
        "on_failure: {order: park_key, destination: 's3://b'}\nretry: {bisect_on_error: false}",
        "on_failure.order: park_key needs retry.bisect_on_error: true",
    ),
    ("idempotency: {mode: ledger}", "idempotency.mode: ledger is not supported yet (use mode: frontier)"),
]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[text for text, _ in VALUES])
def test_a_bad_value_is_one_line_with_its_place(problems: Problems, text: str, expected: str) -> None:
    found = problems(BASE + text + "\n")
    assert any(expected in line for line in found), found
    assert all(line.startswith("c.yaml:") for line in found)


REQUIRED = [
    (
        "application: a b",
        "c.yaml:1: application: must be 1 to 128 of a-z A-Z 0-9 _ . - and start with a letter or digit, found 'a b'",
    ),
    ("application: a#b", "c.yaml:1: application: must be 1 to 128"),
    ("application: 7", "c.yaml:1: application: must be text, found 7 (put it in quotes)"),
    ("application:", "c.yaml:1: application: must be text, found nothing"),
    ("# nothing", "c.yaml:1: application: is required (the name of this consumer)"),
    ("source:", "c.yaml:1: source: must have table or stream_arn (table: NAME reads the table's latest stream)"),
    ("source: orders", "c.yaml:1: source: must be a mapping of keys to values, found 'orders'"),
    (
        f"source: {{table: orders, stream_arn: {STREAM}}}",
        "c.yaml:1: source.stream_arn: cannot be given together with source.table (keep one of them)",
    ),
    (f"source: {{table: {STREAM}}}", "must be a table name or table ARN, found a stream ARN (use source.stream_arn)"),
    (
        "source: {table: 'a b c'}",
        "c.yaml:1: source.table: must be a table name (3 to 255 of a-z A-Z 0-9 _ . -) or a table ARN, found 'a b c'",
    ),
    (
        "source: {stream_arn: 'arn:aws:dynamodb:eu-west-1:1:table/T'}",
        "(this is a table ARN; use source.table, which finds the latest stream)",
    ),
    (
        "source: {stream_arn: 'arn:aws:dynamodb:eu-west-1:1:table/T/index/i'}",
        "(this is an index ARN; a stream belongs to a table)",
    ),
    (
        "source: {stream_arn: 'arn:aws:kinesis:eu-west-1:1:stream/s'}",
        "(this ARN belongs to kinesis; set source.kind: kinesis)",
    ),
    ("source: {stream_arn: 'arn:aws:sqs:eu-west-1:1:q'}", "(this ARN belongs to sqs)"),
    ("source: {stream_arn: orders}", "source.stream_arn: must be a DynamoDB stream ARN"),
    ("source: {table: orders, on_gap: stop}", "source.on_gap: must be halt or continue, found 'stop'"),
    ("source: {table: orders, starting_position: LATEST}", "found 'LATEST' (did you mean latest?)"),
    (
        "source: {table: orders, starting_position: 2026-01-31}",
        "found '2026-01-31' (a date alone does not say when; add a time and a zone)",
    ),
    (
        "source: {table: orders, starting_position: 2026-01-31T12:00:00}",
        "must be a time with a time zone, found '2026-01-31T12:00:00' (add Z for UTC",
    ),
    (
        "source: {table: orders, starting_position: 5}",
        "must be trim_horizon, latest or an ISO-8601 time such as 2026-01-31T12:00:00Z, found 5",
    ),
    (
        "source: {table: orders, poll: {max_records: 1001}}",
        "source.poll.max_records: must be a whole number from 1 to 1000 for kind dynamodb, found 1001 (only",
    ),
    (
        "source: {table: orders, poll: {target_latency: 100ms}}",
        "source.poll.target_latency: must be from 200ms to 5m, found '100ms'",
    ),
    (
        "source: {table: orders, poll: {target_latency: 10s}}",
        "source.poll.target_latency: must be at most source.poll.idle_backoff_max, 5s, found 10s (set idle_backoff",
    ),
    (
        f"source: {{stream_arn: {STREAM}}}\naws: {{region: us-east-1}}",
        "c.yaml:1: source.stream_arn: is in region eu-west-1, but aws.region is us-east-1 (make them agree)",
    ),
    ("handler: {}", "c.yaml:1: handler.target: is required (for example myapp.handlers:handler; or handler.command)"),
    (
        "handler: {target: 'a:b', command: [sh]}",
        "handler.command: cannot be used together with handler.target (remove one of them; a runtime takes its handler",
    ),
    ("handler: {kind: python, command: [sh]}", "handler.command: needs handler.kind lambda, found python"),
    ("handler: {command: sh}", "handler.command: must be a list of texts: a program and its arguments"),
    ("handler: {command: [sh, 1]}", 'such as ["/opt/fn/bootstrap"]'),
    (
        "handler: {command: [./no-such-program]}",
        "handler.command: there is no program './no-such-program' that can be run (give its whole path, or one from",
    ),
    (
        "handler: {kind: python, target: src.app.handle}",
        "c.yaml:1: handler.target: must be module:attribute for kind python (write src.app:handle)",
    ),
    ("handler: {target: 'app.py:handler'}", "(name the module as in an import, not its file; it is looked for in"),
    ("handler: {target: '/srv/app:handler'}", "(name the module as in an import, not its file; it is looked for in"),
    ("handler: {target: ./app.handler}", "(name the module as in an import, not its file; it is looked for in"),
    ("handler: {target: 'app:1x'}", "(for example myapp.handlers:handler)"),
    ("handler: {target: handler}", "(for example myapp.handlers:handler)"),
    (
        "handler: {target: 'a:b', python: /nowhere/python}",
        "handler.python: must be a Python interpreter that can be run, found '/nowhere/python' (a path is relative to",
    ),
    ("handler: {target: 'a:b', python: 3.9}", "handler.python: must be the path of a Python interpreter, found 3.9"),
    (
        "handler: {kind: http, target: 'http://x/', python: python3}",
        "handler.python: is for the built-in lambda and python kinds (remove it)",
    ),
    (
        "handler: {command: [sh], python: python3}",
        "handler.python: is for the built-in lambda and python kinds (handler.command names its interpreter itself)",
    ),
    (
        "handler: {kind: python, target: 'a:b', isolation: inline, python: python3}",
        "handler.python: needs handler.isolation: process (an inline handler runs in the daemon's interpreter)",
    ),
    (
        "batch: {report_batch_item_failures: 'yes'}",
        "batch.report_batch_item_failures: must be true or false, found 'yes'",
    ),
    ("handler: {target: 'http://x/'}", "(a URL needs kind: http)"),
    (
        "handler: {kind: http, target: 'app:handler'}",
        "handler.target: must be an http:// or https:// URL with a host for kind http",
    ),
    (
        "handler: {target: 'a:b', isolation: inline}",
        "handler.isolation: must be process for kind lambda, found 'inline' (use kind: python)",
    ),
    (
        "handler: {target: 'a:b', path: nowhere}",
        "handler.path: must be an existing directory, found 'nowhere' (it is relative to the configuration file)",
    ),
    ("handler: {target: 'a:b', path: c.yaml}", "handler.path: must be an existing directory, found 'c.yaml'"),
    ("handler: {target: 'a:b', timeout: 25h}", "handler.timeout: must be from 100ms to 24h, found '25h'"),
    (
        "handler: {target: 'a:b', max_calls: -1}",
        "handler.max_calls: must be a whole number from 0 to 1000000000, found -1",
    ),
    (
        "handler: {target: 'a:b', max_memory: 512}",
        "handler.max_memory: must be a size such as 64KiB, 4MiB or 1GiB; the range is 16MiB to 1024GiB, or 0 for no",
    ),
    (
        "handler: {target: 'a:b', max_memory: 1MiB}",
        "handler.max_memory: must be from 16MiB to 1024GiB, or 0 for no limit, found '1MiB'",
    ),
    (
        "handler: {kind: python, target: 'a:b', isolation: inline, max_calls: 5}",
        "handler.max_calls: needs worker processes, and this handler has none (remove it, or set handler.isolation:",
    ),
    (
        "handler: {kind: http, target: 'http://x/', max_memory: 1GiB}",
        "handler.max_memory: needs worker processes, and this handler has none (remove it)",
    ),
    ("handler: {target: 'a:b', processes: 0}", "handler.processes: must be a whole number from 1 to 256, found 0"),
]


@pytest.mark.parametrize(("text", "expected"), REQUIRED, ids=[text for text, _ in REQUIRED])
def test_bad_required_sections(problems: Problems, text: str, expected: str) -> None:
    given = text.partition(":")[0]
    rest = [line for line in BASE.splitlines() if not line.startswith(given) or text.startswith("#")]
    if text.startswith("#"):
        rest = rest[1:]
    found = problems("\n".join([text, *rest]) + "\n")
    built = [line for line in found if "not supported yet" not in line or "not supported yet" in expected]
    assert built
    assert all(expected in line for line in built), found


def test_every_problem_is_reported_at_once_in_the_order_of_the_file(problems: Problems) -> None:
    text = """\
application: ${APP}
source:
  table: orders
  stream_arn: nonsense
handler:
  isolation: inline
  timeout: 60
batch: {batch_size: 0, batching_window: 5}
bacth: {}
batch: {}
retry: {backoff: {initial: 2m}}
"""
    assert [line.split(": ")[:2] for line in problems(text)] == [
        ["c.yaml:1", "application"],
        ["c.yaml:4", "source.stream_arn"],
        ["c.yaml:4", "source.stream_arn"],
        ["c.yaml:5", "handler.target"],
        ["c.yaml:6", "handler.isolation"],
        ["c.yaml:7", "handler.timeout"],
        ["c.yaml:8", "batch.batch_size"],
        ["c.yaml:8", "batch.batching_window"],
        ["c.yaml:9", "bacth"],
        ["c.yaml:10", "batch"],
        ["c.yaml:11", "retry.backoff.initial"],
    ]


def test_a_wrong_key_causes_no_second_complaint_through_its_stand_in(problems: Problems) -> None:
    """`max` is unreadable, so `initial` cannot be compared with the default of `max`."""
    assert len(problems(BASE + "retry: {backoff: {initial: 5m, max: soon}}\n")) == 1


def test_secrets_are_not_echoed(problems: Problems) -> None:
    text = BASE + "aws: {secret_access_key: s3cr3t, endpoints: {sqs: 'ftp://user:s3cr3t@host'}}\n"
    text += "http: {port: '${DB_PASSWORD}'}\nlogging: {level: 'x${API_KEY}'}\n"
    found = problems(text, {"DB_PASSWORD": "s3cr3t", "API_KEY": "s3cr3t"})
    assert len(found) == 4
    assert "s3cr3t" not in "\n".join(found)
    assert "found a value that is not shown" in found[2]


def test_long_values_are_cut_and_newlines_do_not_break_the_line(problems: Problems) -> None:
    found = problems(BASE + f'leases: {{table: "{"x" * 500}\\nnext"}}\n')
    assert len(found) == 1
    assert len(found[0]) < 200
