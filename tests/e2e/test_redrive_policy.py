"""deploy/iam/redrive-policy.json: the permissions of ``dlq redrive``, held against what it asks the services for."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import made
from tests.e2e.fleet import Fleet, wait_until
from tests.support.iam_policies import actions, policy, require_least_privilege, shown_in_docs
from tests.support.reshard_proxy import ProxyThread

POLICY = "redrive-policy.json"
MENDED = {"MENDED": "yes"}
LEAST_ACTIONS = {
    "FindTheStream": {"dynamodb:DescribeTable"},
    "CompareWithTheItems": {"dynamodb:GetItem"},
    "CheckTheLeaseTable": {"dynamodb:DescribeTable"},
    "OwnLeaseRowsOnly": {
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
    },
    "TakeLettersFromTheQueue": {
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
    },
    "TakeLettersFromTheBucket": {"s3:DeleteObject", "s3:GetObject"},
    "ListTheBucket": {"s3:ListBucket"},
}
# What an operation is allowed by where no action has its name. The proxy knows S3's by their HTTP methods.
ACTIONS_OF = {
    "TransactWriteItems": {"ConditionCheckItem", "DeleteItem", "PutItem", "UpdateItem"},
    "ChangeMessageVisibilityBatch": {"ChangeMessageVisibility"},
    "HEAD": {"GetObject", "ListBucket"},
    "GET": {"GetObject", "ListBucket"},
    "DELETE": {"DeleteObject"},
}


def test_the_policy_is_least_privilege() -> None:
    require_least_privilege(policy(POLICY), LEAST_ACTIONS)


def test_the_docs_show_what_only_this_role_has() -> None:
    _, shown = shown_in_docs()
    for statement in policy(POLICY):
        assert statement in shown


@pytest.mark.parametrize("kind", ["sqs", "s3"])
def test_a_redrive_needs_all_of_it_and_nothing_else(kind: str, aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    """A single letter and a parked key are brought back over a proxy that writes down what is asked for."""
    dead = made(kind, aws, fleet)
    dead.poison(range(1), range(1, 2))
    dead.letters_of(1)
    dead.overrides["on_failure"]["order"] = "park_key"
    dead.poison(range(1, 2), range(1, 3))
    worker = fleet.start("w2", **dead.overrides)
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") >= 2, 60, "a key is parked")

    direct = dead.overrides["aws"]["endpoints"]
    dead.overrides["aws"]["endpoints"] = dict.fromkeys(direct, proxy.endpoint)
    assert dead.run("redrive", "--dry-run", environment=MENDED).returncode == 0, "which puts back what it has seen"
    done = dead.run("redrive", environment=MENDED)
    assert done.returncode == 0, done.stderr
    assert "1 parked keys freed" in done.stdout
    fleet.wait_for({("bad000", 1), ("bad001", 1), ("bad001", 2)})

    asked_for = set(proxy.proxy.calls)
    needed = {action for operation in asked_for for action in ACTIONS_OF.get(operation, {operation})}
    allowed = {
        action.partition(":")[2]
        for statement in policy(POLICY)
        for action in actions(statement)
        if action.partition(":")[0] in ("dynamodb", kind)
    }
    assert needed == allowed, sorted(asked_for)
