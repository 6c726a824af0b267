"""Files that load: what the values are, and what the environment contributes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from msgspec import Raw
from pydantic import ValidationError

from consumer.domain.polling import Pauses
from consumer.domain.record import Change, Record
from consumer.domain.source_format import ReadingLimits
from consumer.settings.errors import ConfigError
from consumer.settings.load import load_settings, settings_from
from consumer.settings.model import Settings
from consumer.settings.printed import effective_yaml
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE, STREAM

SAMPLES = sorted((Path(__file__).parents[3] / "config").glob("*.yaml"))


def test_the_defaults_are_those_of_the_contract(load: Load, tmp_path: Path) -> None:
    settings = load(BASE)
    assert (settings.source.starting_position, settings.source.on_gap) == ("trim_horizon", "halt")
    poll = settings.source.poll
    assert (poll.max_records, poll.target_latency, poll.idle_backoff_max) == (1000, 2.0, 5.0)
    assert (settings.handler.kind, settings.handler.isolation) == ("lambda", "process")
    assert (settings.handler.processes, settings.handler.timeout, settings.handler.path) == (2, 60.0, tmp_path)
    assert (settings.batch.batch_size, settings.batch.parallelization_factor) == (100, 8)
    assert settings.batch.report_batch_item_failures is settings.handler.python is None
    assert settings.retry.bisect_on_error is True
    assert (settings.retry.max_retry_attempts, settings.retry.max_record_age) == (-1, -1)
    assert (settings.retry.backoff.initial, settings.retry.backoff.max) == (0.2, 30)
    assert (settings.on_failure.destination, settings.on_failure.destination_kind) == (None, None)
    assert (settings.leases.table, settings.leases.create_table, settings.leases.duration) == (
        "stream-consumer",
        False,
        10,
    )
    assert (settings.handler.max_calls, settings.handler.max_memory, settings.handler.recycles) == (0, 0, False)
    assert (settings.limits.buffer, settings.limits.max_shards) == (64 * 1024**2, 0)
    assert (settings.checkpoint.interval, settings.shutdown.grace) == (1, 25)
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 9464)
    assert (settings.logging.level, settings.logging.format) == ("info", "json")
    assert settings.filters == ()
    assert settings.aws.endpoints.secret_urls() == {}


def test_a_longest_pause_below_what_a_shard_allows_loads_and_is_as_long_as_it_must_be(load: Load) -> None:
    poll = load(BASE.replace("table: orders", "table: orders, poll: {idle_backoff_max: 50ms}")).source.poll
    assert poll.idle_backoff_max == 0.05
    assert Pauses.of(ReadingLimits(), poll.target_latency, poll.idle_backoff_max) == (0.2, 0.2, 0.2)


def test_values_are_in_seconds_and_bytes(load: Load) -> None:
    settings = load(
        BASE
        + "aws: {region: ddblocal, endpoints: {sqs: 'http://127.0.0.1:9324'}}\n"
        + "retry: {max_record_age: 7d, max_retry_attempts: 1e3, backoff: {initial: 250ms, max: 5m}}\n"
        + "limits: {buffer: 1.5GiB}\nshutdown: {grace: 0}\nhttp: {port: 010}\n"
        + "on_failure: {destination: 'arn:aws:sqs:eu-west-1:123456789012:orders-dlq'}\nidempotency: {mode: off}\n"
    )
    assert (settings.retry.max_record_age, settings.retry.max_retry_attempts) == (604800, 1000)
    assert (settings.retry.backoff.initial, settings.retry.backoff.max) == (0.25, 300)
    assert settings.limits.buffer == 1536 * 1024**2
    assert (settings.shutdown.grace, settings.http.port, settings.idempotency.mode) == (0, 10, "off")
    assert settings.on_failure.destination_kind == "sqs"
    assert settings.aws.endpoints.secret_urls()["sqs"] == "http://127.0.0.1:9324"
    assert "s3" not in settings.aws.endpoints.secret_urls()


@pytest.mark.parametrize(
    ("options", "calls", "size"),
    [
        ("max_calls: 1000", 1000, 0),
        ("max_memory: 0.5GiB", 0, 512 * 1024**2),
        ("max_calls: 0, max_memory: 0", 0, 0),
        ("max_calls: 1e6, max_memory: 16MiB", 1_000_000, 16 * 1024**2),
    ],
)
def test_recycling_of_worker_processes(load: Load, options: str, calls: int, size: int) -> None:
    text = BASE.replace("handler: {", f"handler: {{{options}, ")
    assert options in text
    settings = load(text)
    assert (settings.handler.max_calls, settings.handler.max_memory) == (calls, size)
    assert settings.handler.recycles is bool(calls or size)
    written = effective_yaml(settings)
    again = load(written)
    assert (again.handler.max_calls, again.handler.max_memory) == (calls, size)


def test_a_variable_holds_all_filters_as_json(load: Load) -> None:
    wanted = ({"eventName": ["INSERT"]}, {"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "a"}]}}}})
    for written in ("${FILTERS}", '"${FILTERS}"'):
        assert load(BASE + f"filters: {written}\n", {"FILTERS": json.dumps(wanted)}).filters == wanted


def test_numbers_are_compared_by_filters_only_when_asked(load: Load) -> None:
    """Any number of filters, and the option reaches the compiled ones."""
    image = "{dynamodb: {NewImage: {n: {N: [{numeric: ['>', %d]}]}}}}"
    text = BASE + f"filters: [{', '.join(image % n for n in range(20, 0, -1))}]\n"
    record = Record(Change("1", NewImage=Raw(b'{"n":{"N":"1.5"}}')))
    settings = load(text)
    assert len(settings.compiled_filters()) == 20
    assert settings.filter_options.numeric_on_n is False
    assert not settings.compiled_filters().matches(record)
    assert load(text + "filter_options: {numeric_on_n: true}\n").compiled_filters().matches(record)


def test_empty_sections_are_all_defaults(load: Load) -> None:
    assert load(BASE + "batch:\naws:\n  endpoints:\nfilters:\nretry:\n  backoff:\n") == load(BASE)


@pytest.mark.parametrize(
    "source",
    [
        f"stream_arn: {STREAM}",
        "stream_arn: arn:aws:dynamodb:ddblocal:000000000000:table/T/stream/2026-01-31T12:00:00.000",
        "stream_arn: arn:aws-cn:dynamodb:cn-north-1:123456789012:table/T/stream/2026-01-31T12:00:00.000",
        "table: arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
        "table: a.b-c_D",
    ],
)
def test_streams_and_tables_of_any_partition(load: Load, source: str) -> None:
    assert load(f"application: a\nsource:\n  {source}\nhandler: {{target: 'a.b:c.d'}}\n")


@pytest.mark.parametrize(
    "written",
    ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31 12:00:00.000+00:00", "20260131T120000Z"],
)
def test_a_starting_time_is_an_aware_datetime_in_utc(load: Load, written: str) -> None:
    settings = load(BASE.replace("{table: orders}", f"{{table: orders, starting_position: {written}}}"))
    assert settings.source.starting_position == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert isinstance(settings.source.starting_position, datetime)
    assert settings.source.starting_position.tzinfo is UTC


def test_a_starting_time_from_code() -> None:
    good = {"application": "a", "handler": {"target": "a:b"}}
    moment = datetime(2026, 1, 31, tzinfo=UTC)
    source = {"table": "orders", "starting_position": moment}
    assert Settings.model_validate({**good, "source": source}).source.starting_position == moment
    for bad in (datetime(2026, 1, 31), date(2026, 1, 31)):
        with pytest.raises(ValidationError):
            Settings.model_validate({**good, "source": {**source, "starting_position": bad}})


def test_settings_from_code_obey_the_same_rules_and_cannot_change() -> None:
    data = {"application": "a", "source": {"table": "orders"}, "handler": {"target": "a:b", "isolation": "inline"}}
    with pytest.raises(ConfigError) as caught:
        settings_from({**data, "batch": {"batch_size": 0}, "idempotency": {"mode": "ledger"}})
    assert str(caught.value).splitlines() == [
        "settings: batch.batch_size: must be a whole number from 1 to 10000, found 0",
        "settings: handler.isolation: must be process for kind lambda, found 'inline' (use kind: python)",
        "settings: idempotency.mode: ledger is not supported yet (use mode: frontier)",
    ]
    settings = settings_from({**data, "handler": {"target": "a:b"}})
    with pytest.raises(ValidationError):
        settings.application = "b"


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_loads(sample: Path) -> None:
    checkout, beside = sample.parents[1], sample.parent
    expected = checkout if sample.name.startswith("local-") else beside  # these run a handler of the checkout
    assert load_settings(sample, {}).handler.path == expected


def test_the_documented_sample_mentions_every_key_with_its_default(load: Load) -> None:
    sample = next(path for path in SAMPLES if path.name == "consumer.yaml")
    settings = load_settings(sample, {})
    minimal = load_settings(sample.with_name("minimal.yaml"), {})
    handler = settings.handler.model_copy(update={"timeout": minimal.handler.timeout})  # has its default beside it
    others = {"aws": minimal.aws, "on_failure": minimal.on_failure, "handler": handler}
    assert settings.model_copy(update=others) == minimal
    for name, section in settings:
        for key in getattr(type(section), "model_fields", {}):
            assert f"{key}:" in sample.read_text(), f"{name}.{key}"


def test_handler_path_is_relative_to_the_file_not_to_the_working_directory(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    monkeypatch.chdir("/")
    assert load(BASE.replace("{target", "{path: code, target")).handler.path == tmp_path / "code"


def test_checking_a_file_is_fast_and_needs_no_sdk() -> None:
    code = (
        "import sys; from pathlib import Path; from consumer.settings.load import load_settings;"
        f"load_settings(Path({str(SAMPLES[0])!r}), {{}});"
        "sys.exit(any(m.split('.')[0] in {'aioboto3', 'aiobotocore', 'botocore', 'aiohttp'} for m in sys.modules))"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=SAMPLES[0].parents[1])
    assert time.monotonic() - started < 2


class TestInterpolation:
    def test_an_unquoted_reference_gets_the_type_of_its_value(self, load: Load) -> None:
        text = BASE + "http: {port: '${PORT}'}\nleases:\n  duration: ${D}\n  create_table: ${CREATE}\n"
        settings = load(text, {"PORT": "81", "D": "3s", "CREATE": "true"})
        assert (settings.http.port, settings.leases.duration, settings.leases.create_table) == (81, 3, True)

    def test_a_quoted_reference_can_be_text_that_looks_like_a_number(self, load: Load, problems: Problems) -> None:
        rest = BASE.partition("\n")[2]
        assert load('application: "${A}"\n' + rest, {"A": "123"}).application == "123"
        assert "must be text, found 123" in problems("application: ${A}\n" + rest, {"A": "123"})[0]

    def test_defaults_apply_to_missing_and_empty_variables(self, load: Load) -> None:
        text = BASE + "leases:\n  table: pre-${A:-x}-${B:-y:-z}${C}\nhttp:\n  port: ${P:-99}\n"
        with pytest.raises(ConfigError):
            load(text, {"A": "", "C": ""})
        assert load(text.replace(":-z", "z"), {"A": "", "C": ""}).leases.table == "pre-x-yz"

    def test_the_escape(self, load: Load) -> None:
        assert load(BASE + "leases: {table: 'abc'}\naws: {endpoints: {s3: 'http://h/$${A}/$B'}}").aws.endpoints.s3 == (
            "http://h/${A}/$B"
        )

    def test_an_empty_unquoted_value_is_null(self, load: Load) -> None:
        assert load(BASE + "aws:\n  region: ${R:-}\n").aws.region is None

    def test_a_value_never_adds_structure(self, problems: Problems, load: Load) -> None:
        hostile = "abc\nhttp: {port: 1}\n# [*x, !!python/object:os.system y]"
        assert len(problems(BASE + "leases:\n  table: ${T}\n", {"T": hostile})) == 1
        assert len(problems(BASE + "http: ${T}\n", {"T": "{port: 1}"})) == 1
        assert (
            load(BASE + "aws:\n  endpoints:\n    s3: http://h/${T}\n", {"T": "${U}"}).aws.endpoints.s3
            == "http://h/${U}"
        )

    def test_all_missing_variables_are_reported(self, problems: Problems) -> None:
        text = BASE + "leases:\n  table: ${A}-${B}\nhttp:\n  port: ${C}\nunknown: ${D}\n"
        found = problems(text)
        assert found[0] == "c.yaml:5: leases.table: environment variable A is not set (set it, or write ${A:-default})"
        assert [line.split(": ", 2)[2].split(": ")[0] for line in found] == [
            "environment variable A is not set (set it, or write ${A:-default})",
            "environment variable B is not set (set it, or write ${B:-default})",
            "environment variable C is not set (set it, or write ${C:-default})",
            "environment variable D is not set (set it, or write ${D:-default})",
            "unknown key (allowed here",
        ]

    @pytest.mark.parametrize("written", ["${}", "${1A}", "${A-b}", "${A:-${B}}", "${A B}", "${A"])
    def test_malformed_references(self, problems: Problems, written: str) -> None:
        found = problems(BASE + f"leases:\n  table: '{written}'\n", {"A": "abc"})
        assert len(found) == 1
        assert "(write $${ for a literal ${)" in found[0]

    def test_comments_and_keys_are_not_expanded(self, load: Load, problems: Problems) -> None:
        assert load(BASE + "# ${NOT_SET}\n")
        assert "unknown key" in problems(BASE + "'${A}': 1\n", {"A": "http"})[0]


@pytest.mark.parametrize("order", ["park_key", "block"])
@pytest.mark.parametrize("destination", ["s3://letters/orders", "arn:aws:sqs:eu-west-1:123456789012:letters"])
def test_later_records_of_a_key_may_wait_for_it(load: Load, order: str, destination: str) -> None:
    text = f"{BASE}on_failure: {{order: {order}, destination: '{destination}'}}"
    assert load(text).on_failure.order == order
