"""Properties of a MultiLangDaemon become a configuration that is complete but for what only a person can know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from consumer.cli.kcl_import.command import import_kcl
from consumer.cli.kcl_import.java_properties import parse_properties
from consumer.cli.kcl_import.multilang import configuration_of
from consumer.settings.load import load_with_warnings
from consumer.settings.model import Settings

SAMPLE = """
executableName = sample_kclpy_app.py
streamName = kclpysample
applicationName = PythonKCLSample
AWSCredentialsProvider = DefaultAWSCredentialsProviderChain
processingLanguage = python/3.8
initialPositionInStream = TRIM_HORIZON
regionName = eu-west-1
"""
ADAPTER = """
executableName = ./processor --fast
streamName = arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-02T03:04:05.678
applicationName = orders-projector
AWSCredentialsProvider = DefaultAWSCredentialsProviderChain
"""
STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-02T03:04:05.678"
KINESIS = "arn:aws:kinesis:us-east-2:123456789012:stream/orders"


def converted(text: str) -> tuple[dict[str, Any], dict[str, str], str]:
    """The file as YAML reads it, the notes by key, and the text."""
    written, notes = configuration_of(parse_properties(text.encode("latin-1")))
    return yaml.safe_load(written), {note.option: note.reason for note in notes}, written


def checked(written: str, tmp_path: Path, **environ: str) -> Settings:
    """Through the daemon's own loader, as check-config does it."""
    file = tmp_path / "config.yaml"
    file.write_text(written)
    (tmp_path / "processor.py").write_text("def handle(records, context): pass\n")
    return load_with_warnings(file, dict(os.environ) | environ)[0]


def test_the_sample_of_the_python_client() -> None:
    found, notes, _ = converted(SAMPLE)
    assert found == {
        "application": "PythonKCLSample",
        "aws": {"region": "eu-west-1"},
        "source": {
            "kind": "kinesis",
            "stream": "kclpysample",
            "starting_position": "trim_horizon",
            "on_gap": "continue",
        },
        "handler": {"kind": "python", "target": "${HANDLER_TARGET}"},
        "batch": {"parallelization_factor": 1, "order": "shard"},
    }
    assert notes.keys() == {"applicationName", "executableName", "AWSCredentialsProvider"}
    assert "`stream-consumer import-kcl FILE --table PythonKCLSample`" in notes["applicationName"]
    assert "sample_kclpy_app.py speaks the MultiLangDaemon's protocol" in notes["executableName"]
    assert "handle(records, context)" in notes["executableName"]


@pytest.mark.parametrize(
    ("millis", "poll"),
    [
        ("1000", {"target_latency": "1s"}),
        ("50", {"target_latency": "200ms"}),
        ("5000", {"target_latency": "5s"}),
        ("10000", {"target_latency": "10s", "idle_backoff_max": "10s"}),
    ],
)
def test_the_pause_between_reads(tmp_path: Path, millis: str, poll: dict[str, str]) -> None:
    found, _, written = converted(ADAPTER + f"idleTimeBetweenReadsInMillis = {millis}\n")
    assert found["source"]["poll"] == poll
    checked(written, tmp_path, HANDLER_COMMAND="/bin/true")


def test_everything_that_has_a_counterpart(tmp_path: Path) -> None:
    found, notes, written = converted(
        ADAPTER
        + """
        failoverTimeMillis = 30000
        maxRecords = 500
        idleTimeBetweenReadsInMillis = 250
        maxLeasesForWorker = 12
        shutdownGraceMillis = 20000
        timeoutInSeconds = 90
        initialPositionInStreamExtended = 1636609142
        kinesisEndpoint = https://streams.dynamodb.eu-west-1.amazonaws.com
        dynamoDBEndpoint = https://dynamodb.eu-west-1.amazonaws.com
        dynamoDBRegionName = us-east-1
        tableName = orders-leases
        """
    )
    assert found == {
        "application": "orders-projector",
        "aws": {
            "region": "eu-west-1",
            "endpoints": {
                "dynamodb_streams": "https://streams.dynamodb.eu-west-1.amazonaws.com",
                "dynamodb": "https://dynamodb.eu-west-1.amazonaws.com",
            },
        },
        "source": {
            "kind": "dynamodb",
            "stream_arn": STREAM,
            "starting_position": "2021-11-11T05:39:02Z",
            "on_gap": "continue",
            "poll": {"max_records": 500, "target_latency": "250ms"},
        },
        "handler": {"kind": "lambda", "command": ["${HANDLER_COMMAND}"], "timeout": "90s"},
        "batch": {"parallelization_factor": 1, "order": "shard"},
        "leases": {"duration": "30s"},
        "limits": {"max_shards": 12},
        "shutdown": {"grace": "20s"},
    }
    assert "--table orders-leases" in notes["tableName"]
    assert "--table-region us-east-1" in notes["dynamoDBRegionName"]
    assert "Lambda Runtime API" in notes["executableName"]
    settings = checked(written, tmp_path, HANDLER_COMMAND="/bin/true")
    assert settings.source.stream_arn == STREAM
    assert (settings.leases.duration, settings.limits.max_shards, settings.shutdown.grace) == (30.0, 12, 20.0)


def test_what_only_a_person_knows_is_asked_for(tmp_path: Path) -> None:
    """The daemon refuses the file until the variable is set, and takes it then."""
    _, _, written = converted(ADAPTER.replace("./processor --fast", "processor.py"))
    with pytest.raises(Exception, match="environment variable HANDLER_TARGET is not set"):
        checked(written, tmp_path)
    assert checked(written, tmp_path, HANDLER_TARGET="processor:handle").handler.target == "processor:handle"


@pytest.mark.parametrize(
    "stream", ["streamName = orders", "streamArn = arn:aws:kinesis:eu-west-1:123456789012:stream/orders"]
)
def test_a_kinesis_stream_passes_the_check(stream: str, tmp_path: Path) -> None:
    _, _, written = converted(SAMPLE.replace("streamName = kclpysample", stream) + "maxRecords = 10000\n")
    settings = checked(written, tmp_path, HANDLER_TARGET="processor:handle")
    assert (settings.source.kind, settings.source.poll.max_records) == ("kinesis", 10000)


@pytest.mark.parametrize(
    ("line", "source"),
    [
        (f"streamArn = {KINESIS}", {"stream_arn": KINESIS}),
        ("streamArn = arn:aws:sqs:us-east-2:1:orders", {"stream_arn": "${STREAM_ARN}"}),
        ("streamName = a b", {"stream": "${STREAM_NAME}"}),
        ("", {"stream": "${STREAM_NAME}"}),
    ],
)
def test_the_stream(line: str, source: dict[str, str]) -> None:
    found, notes, _ = converted(SAMPLE.replace("streamName = kclpysample", line))
    assert {name: found["source"][name] for name in source} == source
    assert ("STREAM_" in str(notes)) == ("${" in str(source))


def test_the_arn_counts_before_the_name_and_the_region() -> None:
    found, notes, _ = converted(SAMPLE + "streamArn = arn:aws:kinesis:us-east-2:123456789012:stream/other\n")
    assert found["aws"] == {"region": "us-east-2"}
    assert "does not count beside streamArn" in notes["streamName"]
    assert "eu-west-1 does not count" in notes["regionName"]


EXTENDED = "initialPositionInStreamExtended"


@pytest.mark.parametrize(
    ("lines", "position", "noted"),
    [
        ("", "latest", False),
        ("initialPositionInStream = LATEST", "latest", False),
        ("initialPositionInStream = trim_horizon", "trim_horizon", False),
        ("initialPositionInStream = AT_TIMESTAMP", "${STARTING_POSITION}", True),
        (f"initialPositionInStream = AT_TIMESTAMP\n{EXTENDED}=1636609142", "2021-11-11T05:39:02Z", True),
        (f"initialPositionInStream = LATEST\n{EXTENDED}=soon", "latest", True),
    ],
)
def test_the_starting_position(lines: str, position: str, noted: bool) -> None:
    found, notes, _ = converted(ADAPTER + lines)
    assert found["source"]["starting_position"] == position
    assert any(key.startswith("initialPosition") for key in notes) is noted


@pytest.mark.parametrize(
    ("line", "section", "value", "noted"),
    [
        ("failoverTimeMillis = 500", "leases", {"duration": "1s"}, True),
        ("failoverTimeMillis = 600000", "leases", {"duration": "5m"}, True),
        ("failoverTimeMillis = ten", "leases", None, True),
        ("maxLeasesForWorker = 2147483647", "limits", {"max_shards": 0}, False),
        ("maxLeasesForWorker = 0", "limits", None, True),
        ("shutdownGraceMillis = 0", "shutdown", {"grace": "0s"}, False),
    ],
)
def test_numbers_at_the_ends(line: str, section: str, value: Any, noted: bool) -> None:
    found, notes, _ = converted(ADAPTER + line)
    assert found.get(section) == value
    assert (line.partition(" ")[0] in notes) is noted


def test_more_records_than_a_dynamodb_stream_gives(tmp_path: Path) -> None:
    """The adapter caps them, too."""
    found, _, _ = converted(ADAPTER + "maxRecords = 10000")
    assert found["source"]["poll"]["max_records"] == 1000


def test_an_application_name_that_cannot_be_one(tmp_path: Path) -> None:
    found, _, written = converted(ADAPTER.replace("orders-projector", "_orders projector"))
    assert found["application"] == "${APPLICATION}"
    assert "'_orders projector' cannot be one here: set APPLICATION" in written
    assert checked(written, tmp_path, APPLICATION="orders", HANDLER_COMMAND="/bin/true").application == "orders"


def test_secrets_are_not_shown() -> None:
    """Neither those of a credentials provider nor whatever an unknown key holds."""
    _, notes, written = converted(
        SAMPLE.replace("DefaultAWSCredentialsProviderChain", "KclStaticCredentialsProvider|AKIAXXXX|s3cr3t")
        + "sinkPassword = hunter2\nAwsCredentialsProviderDynamoDB = x|AKIAYYYY|z\n"
    )
    assert "hunter2" not in written + str(notes)
    assert not re.search("AKIA|s3cr3t", written + str(notes))
    assert notes["sinkPassword"] == "not a key that is known here: look whether it matters"


# All keys of the sample files of kclpy, of the KCL for .NET and Node.js, and of MultiLangDaemonConfiguration.
KEYS = re.findall(
    r"\S+",
    """
workerId shardSyncIntervalMillis callProcessRecordsEvenForEmptyRecordList parentShardPollIntervalMillis
cleanupLeasesUponShardCompletion taskBackoffTimeMillis metricsBufferTimeMillis metricsMaxQueueSize metricsLevel
metricsEnabledDimensions validateSequenceNumberBeforeCheckpointing maxActiveThreads ignoreUnexpectedChildShards
maxLeasesToStealAtOneTime initialLeaseTableReadCapacity initialLeaseTableWriteCapacity maxLeaseRenewalThreads
listShardsBackoffTimeInMillis maxListShardsRetryAttempts shardPrioritization userAgent
skipShardSyncAtWorkerInitializationIfLeasesExist schedulerInitializationBackoffTimeMillis logWarningForTaskAfterMillis
retrievalMode fanoutConfig.consumerArn fanoutConfig.consumerName retryGetRecordsInSeconds maxGetRecordsThreadPool
idleMillisBetweenCalls AwsCredentialsProviderDynamoDB AwsCredentialsProviderCloudWatch cloudWatchRegionName
kinesisClient.httpClientBuilder clientVersionConfig coordinatorStateTableName coordinatorStateBillingMode
coordinatorStateTags gracefulLeaseHandoffTimeoutMillis isGracefulLeaseHandoffEnabled workerMetricsTableName
workerMetricsReporterFreqInMillis inMemoryWorkerMetricsCaptureFrequencyMillis noOfPersistedMetricsPerWorkerMetrics
disableWorkerMetrics maxThroughputPerHostKBps dampeningPercentage reBalanceThresholdPercentage allowThroughputOvershoot
varianceBalancingFrequency workerMetricsEMAAlpha staleWorkerMetricsEntryCleanupDuration leaseAssignmentIntervalMillis
leasesRecoveryAuditorExecutionFrequencyMillis billingMode
    """,
)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_without_a_counterpart_is_named_with_a_reason(key: str) -> None:
    """In the file, too; and no reason says that the key is not known."""
    _, notes, written = converted(f"{SAMPLE}{key} = 1\n")
    assert notes[key]
    assert "not a key that is known" not in notes[key]
    assert f"\n# - {key}: {notes[key]}" in written


def test_a_key_that_comes_twice_is_named(tmp_path: Path) -> None:
    found, notes, _ = converted(ADAPTER + "maxRecords = 10\nmaxRecords = 20\n")
    assert found["source"]["poll"]["max_records"] == 20
    assert notes["maxRecords"].startswith("is there 2 times: the one in line ")


def test_every_value_is_explained() -> None:
    for line in converted(ADAPTER + "maxRecords = 10\nmaxLeasesForWorker = 3\n")[2].splitlines():
        assert "#" in line or (line.endswith(":") and not line.startswith(" "))


# --- the command -------------------------------------------------------------------------------------


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(import_kcl, list(arguments), input=stdin)


def test_yaml_on_stdout_and_the_rest_on_stderr(tmp_path: Path) -> None:
    file = tmp_path / "sample.properties"
    file.write_text(SAMPLE)
    for result in (run("--properties", str(file)), run("--properties", "-", stdin=SAMPLE.encode())):
        assert result.exit_code == 0
        assert yaml.safe_load(result.stdout)["application"] == "PythonKCLSample"
        assert "  executableName: " in result.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for result in (run("--properties", str(tmp_path / "missing")), run("--properties", "-", stdin=rb"a = \u1")):
        assert result.exit_code == 78
        assert (result.stdout, result.stderr.count("\n")) == ("", 1)
