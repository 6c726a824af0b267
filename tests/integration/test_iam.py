"""deploy/iam: the policies grant what the daemon and the commands ask for, and nothing else.

Everything runs once in this process on the embedded AWS, with the very names of the sample policies, and every request
is written down as it leaves (``tests/support/iam_recorder.py``).
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import yaml
from botocore import xform_name
from click.testing import CliRunner

from consumer.aws.adapters import MainAdapters
from consumer.aws.errors import iam_action
from consumer.cli.main import main
from consumer.settings.model import Settings
from consumer.worker import app
from consumer.worker.clock import HeardClock, SystemClock
from demo.local_aws import LocalAws, free_port
from deploy.iam.generate import generated
from tests.support.destination_worlds import Letter
from tests.support.iam_policies import actions, grants, policy
from tests.support.iam_recorder import Ask, recorded
from tests.support.kcl_items import KEYS, lease_item

pytestmark = pytest.mark.xdist_group("iam")

ROOT = Path(__file__).parents[2]
ACCOUNT, REGION = "123456789012", "eu-west-1"
SERVICES = ("dynamodb", "dynamodb_streams", "kinesis", "sqs", "sns", "s3")
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:orders-dlq"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:orders-dead-letters"
BUCKET = "s3://orders-dead-letters/letters"
HANDLER = """
import os

async def handle(records, context):
    if "MENDED" not in os.environ:
        raise ValueError("poison")
"""
# Who has which policies, and what the role is for.
ROLES = {
    "init": ["init-policy.json"],
    "daemon": ["policy.json"],
    "check-config": ["policy.json"],
    "replay": ["policy.json"],
    "kinesis daemon": ["kinesis-policy.json"],
    "kinesis check-config": ["kinesis-policy.json"],
    "sns": ["sns-policy.json"],
    "s3": ["s3-policy.json"],
    "import-kcl": ["policy.json", "import-kcl-policy.json"],
    "dlq list": ["dlq-read-policy.json"],
    "dlq redrive": ["redrive-policy.json"],
}
CLIENTS = {"_client", "client", "_dynamodb", "_streams"}  # as the adapters call them
WRITES_BY_NAME = {"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}  # in consumer.aws.table_rows
OF_SERVICES = "kms-policy.json"  # which ask KMS in the daemon's name


class Everything:
    """The account of the sample policies, and what runs in it."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint = endpoint
        self.folder = folder
        self.asks: dict[str, list[Ask]] = {role: [] for role in ROLES}
        self.dynamodb, self.sqs, self.sns, self.s3, self.kinesis, self.streams = (
            boto3.client(
                name,
                endpoint_url=endpoint,
                region_name=REGION,
                aws_access_key_id=ACCOUNT,
                aws_secret_access_key="test",
            )
            for name in ("dynamodb", "sqs", "sns", "s3", "kinesis", "dynamodbstreams")
        )
        (folder / "iam_handler.py").write_text(HANDLER)

    def settings(self, **overrides: Any) -> dict[str, Any]:
        document: dict[str, Any] = {
            "application": "orders-projector",
            "aws": {"region": REGION, "endpoints": dict.fromkeys(SERVICES, self.endpoint)},
            "source": {"table": "orders", "poll": {"idle_backoff_max": "250ms"}},
            "handler": {
                "kind": "python",
                "isolation": "inline",
                "target": "iam_handler:handle",
                "path": str(self.folder),
            },
            "retry": {"max_retry_attempts": 0},
            "on_failure": {"destination": QUEUE},
            "leases": {"table": "stream-consumer", "duration": "2s"},
            "checkpoint": {"interval": "250ms"},
            "http": {"port": free_port()},
        }
        return document | overrides

    def command(self, role: str, *words: str, code: int = 0, **overrides: Any) -> str:
        """Run a command with ``{config}`` in its words; what it printed."""
        path = self.folder / "consumer.yaml"
        path.write_text(yaml.safe_dump(self.settings(**overrides)))
        path.chmod(0o600)
        with recorded() as asks:
            done = CliRunner().invoke(main, [word.replace("{config}", str(path)) for word in words])
        self.asks[role] += asks
        assert done.exit_code == code, f"{words}: {done.output} {done.exception!r}"
        return done.stdout

    def daemon(self, role: str, enough: Callable[[list[Ask]], bool], **overrides: Any) -> None:
        """Run the daemon until it has asked for ``enough``."""

        async def run(asks: list[Ask]) -> None:
            stop = asyncio.Event()
            running = asyncio.create_task(app.Daemon(Settings.model_validate(self.settings(**overrides))).run(stop))
            deadline = time.monotonic() + 60
            while not enough(asks) and not running.done():
                assert time.monotonic() < deadline, asks
                await asyncio.sleep(0.05)
            stop.set()
            await running

        with recorded() as asks:
            asyncio.run(run(asks))
        self.asks[role] += asks

    def send(self, role: str, destination: str) -> None:
        """A dead letter goes to this place."""

        async def run() -> None:
            settings = Settings.model_validate(self.settings(on_failure={"destination": destination}))
            async with MainAdapters(settings, lambda *_: None, HeardClock(SystemClock())) as adapters:
                assert adapters.dead_letters is not None
                await adapters.dead_letters.prepare()
                letter = Letter()
                await adapters.dead_letters.send(letter.body, attributes=letter.attributes)

        with recorded() as asks:
            asyncio.run(run())
        self.asks[role] += asks

    def put(self, key: str, version: int) -> None:
        self.dynamodb.put_item(TableName="orders", Item={"pk": {"S": key}, "version": {"N": str(version)}})


def sent(count: int, action: str) -> Callable[[list[Ask]], bool]:
    return lambda asks: sum(ask.action == action for ask in asks) >= count


def of_a_table(world: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is a table; dead letters go to each kind of destination, and come back."""
    keys: Any = {
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    }
    stream = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    made = world.dynamodb.create_table(
        TableName="orders", BillingMode="PAY_PER_REQUEST", StreamSpecification=stream, **keys
    )
    world.sqs.create_queue(QueueName="orders-dlq")
    world.sns.create_topic(Name="orders-dead-letters")
    world.s3.create_bucket(Bucket="orders-dead-letters", CreateBucketConfiguration={"LocationConstraint": REGION})
    world.command("init", "init", "--config", "{config}")

    shards = world.streams.describe_stream(StreamArn=made["TableDescription"]["LatestStreamArn"])
    world.dynamodb.create_table(TableName="orders-kcl", **KEYS)
    for shard in shards["StreamDescription"]["Shards"]:
        world.dynamodb.put_item(TableName="orders-kcl", Item=lease_item(shard["ShardId"], "TRIM_HORIZON"))
    world.command("import-kcl", "import-kcl", "{config}", "--table", "orders-kcl", "--failover-time", "1s", "--yes")

    world.command("check-config", "check-config", "--aws", "{config}")
    # A parked key and a single letter, each in one kind of place, brought back from there.
    world.put("parked", 1)
    world.put("parked", 2)
    parking = {"on_failure": {"destination": QUEUE, "order": "park_key"}}
    world.daemon("daemon", sent(2, "sqs:SendMessage"), **parking)
    world.put("single", 1)
    in_bucket = {"on_failure": {"destination": BUCKET}}
    world.daemon("s3", sent(1, "s3:PutObject"), **in_bucket)
    world.send("sns", TOPIC)
    for where in (parking, in_bucket):
        listed = json.loads(world.command("dlq list", "dlq", "list", "--output", "json", "{config}", **where))
        digest = listed["groups"][0]["key"]
        world.command("dlq list", "dlq", "show", "--key", digest, "--config", "{config}", **where)
        world.command("dlq redrive", "dlq", "redrive", "--dry-run", "{config}", **where)
        with monkeypatch.context() as mended:
            mended.setenv("MENDED", "yes")
            world.command("dlq redrive", "dlq", "redrive", "{config}", **where)
        world.command("dlq redrive", "dlq", "purge", "--yes", "{config}", **where)
    world.command("replay", "replay", "--from", "trim_horizon", "--dry-run", "{config}")
    world.command("replay", "replay", "--from", "trim_horizon", "--yes", "{config}")


def of_a_kinesis_stream(world: Everything) -> None:
    """The same application on another source, so with other lease rows."""
    world.dynamodb.update_table(TableName="stream-consumer", DeletionProtectionEnabled=False)
    world.dynamodb.delete_table(TableName="stream-consumer")
    world.command("init", "init", "--config", "{config}")
    world.kinesis.create_stream(StreamName="orders-changes", ShardCount=1)
    world.kinesis.put_record(StreamName="orders-changes", Data=b"{}", PartitionKey="a")
    source = {"kind": "kinesis", "stream": "orders-changes"}
    world.command("kinesis check-config", "check-config", "--aws", "{config}", source={**source, "table": "orders"})
    parking = {"destination": QUEUE, "order": "park_key"}
    world.daemon("kinesis daemon", sent(1, "sqs:SendMessage"), source=source, on_failure=parking)
    world.command("kinesis daemon", "replay", "--from", "trim_horizon", "--dry-run", "{config}", source=source)


@pytest.fixture(scope="module")
def asks(local_aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Ask]]]:
    """What each role asked for."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setattr(app, "configure_logging", lambda *_, **__: None)  # that of this process is the tests'
        world = Everything(local_aws.endpoint, tmp_path_factory.mktemp("iam"))
        of_a_table(world, monkeypatch)
        of_a_kinesis_stream(world)
        yield world.asks


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_asked_for_that_is_not_granted(role: str, asks: dict[str, list[Ask]]) -> None:
    granted = [statement for name in ROLES[role] for statement in policy(name)]
    if role in ("sns", "s3"):
        granted += policy("policy.json")
    assert asks[role]
    assert {ask for ask in asks[role] if not any(grants(statement, ask) for statement in granted)} == set()


@pytest.mark.parametrize("name", sorted({name for names in ROLES.values() for name in names}))
def test_nothing_is_granted_that_nobody_asks_for(name: str, asks: dict[str, list[Ask]]) -> None:
    """Of who has the policy as his only one, or for what it adds."""
    asked = [ask for role, names in ROLES.items() if names[-1] == name for ask in asks[role]]
    unused = {
        (statement["Sid"], action)
        for statement in policy(name)
        for action in actions(statement)
        if not any(ask.action == action and grants(statement, ask) for ask in asked)
    }
    assert unused == set()


@pytest.mark.parametrize(("role", "name"), [("daemon", "policy.json"), ("kinesis daemon", "kinesis-policy.json")])
def test_a_rehearsal_alone_shows_no_need(role: str, name: str, asks: dict[str, list[Ask]]) -> None:
    """check-config asks for every write on purpose; the daemon itself must need it, too."""
    granted = {action for statement in policy(name) for action in actions(statement)}
    assert {ask.action for ask in asks[role]} == granted - {"dynamodb:DescribeKinesisStreamingDestination"}


def test_every_call_of_the_adapters_was_recorded(asks: dict[str, list[Ask]]) -> None:
    """A call that no run above makes could need anything."""
    session = botocore.session.get_session()
    named = {
        xform_name(operation): operation
        for service in ("dynamodb", "dynamodbstreams", "kinesis", "sqs", "sns", "s3")
        for operation in session.get_service_model(service).operation_names
    }
    called: set[str] = set()
    for path in sorted((ROOT / "consumer" / "aws").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if node.func.attr in named and owner.rpartition(".")[2] in CLIENTS:
                    called.add(named[node.func.attr])
            elif isinstance(node, ast.Constant) and node.value in WRITES_BY_NAME:
                called.add(node.value)
    assert len(called) > 20
    assert called - {ask.operation for every in asks.values() for ask in every} == set()


def test_errors_name_the_permission_that_was_missing(asks: dict[str, list[Ask]]) -> None:
    """For a transaction, the one that always is among them."""
    for ask in {ask for every in asks.values() for ask in every if ask.operation != "TransactWriteItems"}:
        assert iam_action(ask.operation, ask.resource) == ask.action


def test_the_files_are_those_of_the_table() -> None:
    for path, content in generated().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run python -m deploy.iam.generate"
    made = {path.name for path in generated()} - {"iam.md"}
    assert {path.name for path in (ROOT / "deploy" / "iam").glob("*.json")} == made
    assert made == {name for names in ROLES.values() for name in names} | {OF_SERVICES}


OWN = Ask("dynamodb:GetItem", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/stream-consumer", "GetItem")


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        ({"orders-projector"}, True),
        ({"orders-projector#sessions"}, True),
        ({"orders-projector2"}, False),
        ({"orders-projector", "another"}, False),
        (set(), False),
    ],
)
def test_an_application_has_its_own_rows_only(keys: set[str], allowed: bool) -> None:
    ask = OWN._replace(leading_keys=frozenset(keys))
    assert any(grants(statement, ask) for statement in policy("policy.json")) is allowed
    elsewhere = ask._replace(resource=OWN.resource + "-2")
    assert not any(grants(statement, elsewhere) for statement in policy("policy.json"))


def test_no_policy_grants_everything() -> None:
    for name in sorted({name for names in ROLES.values() for name in names} | {OF_SERVICES}):
        for statement in policy(name):
            assert statement["Effect"] == "Allow"
            assert not any("*" in action for action in actions(statement))
            assert statement["Resource"].removesuffix("/*").count("*") == 0
