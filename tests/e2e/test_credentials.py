"""A daemon whose credentials come from an endpoint that fails, hangs, answers nonsense and rotates."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, wait_until
from tests.support.credential_endpoint import CredentialEndpoint, Mood
from tests.support.reshard_proxy import ProxyThread

pytestmark = pytest.mark.behind_proxy()


@pytest.fixture
def endpoint() -> Iterator[CredentialEndpoint]:
    with CredentialEndpoint() as endpoint:
        yield endpoint


def test_a_provider_that_is_down_costs_nothing_while_the_credentials_hold(aws: Aws, fleet: Fleet) -> None:
    """It is asked from the start on, because they end in two minutes; leases, reading and handling go on. All at once,
    each as an application of its own."""
    moods: tuple[Mood, ...] = ("hangs", "fails", "nonsense")

    def handled_by(name: str) -> set[tuple[str, int]]:
        return {(line[0], line[1]) for line in fleet.journal() if line[2] == name}

    with ExitStack() as stack:
        endpoints = {mood: stack.enter_context(CredentialEndpoint()) for mood in moods}
        workers = {}
        for mood, endpoint in endpoints.items():
            endpoint.seconds = 120.0
            workers[mood] = fleet.start(mood, endpoint.environment, application=f"app-{mood}")
        first = aws.write(fleet.table, 5, range(1, 2))
        wait_until(lambda: all(first <= handled_by(mood) for mood in moods), 60, "everybody has handled some")
        for mood, endpoint in endpoints.items():
            endpoint.mood = mood
        wait_until(lambda: all(one.asked > 3 for one in endpoints.values()), 30, "each of the two loops asks again")
        for worker in workers.values():
            assert 60 < worker.metric("stream_consumer_credentials_expiry_seconds") < 120
        written = aws.write(fleet.table, 5, range(2, 6))
        wait_until(lambda: all(written <= handled_by(mood) for mood in moods), 10, "everybody goes on")
        lost = {"session.fenced", "session.renew_failed", "lease.lost", "shard.read_failed", "task.died"}
        for worker in workers.values():
            assert not lost & {entry["event"] for entry in worker.events()}


def test_a_provider_that_comes_up_late_is_waited_for(aws: Aws, fleet: Fleet, endpoint: CredentialEndpoint) -> None:
    endpoint.mood = "fails"
    worker = fleet.start("w", endpoint.environment)
    wait_until(lambda: any(e["event"] == "start.waiting" for e in worker.events()), 20, "it waits")
    endpoint.mood = "gives"
    fleet.wait_for(aws.write(fleet.table, 5, range(1, 2)), 30)


def test_keys_that_are_revoked_are_replaced_without_a_restart(
    aws: Aws, fleet: Fleet, proxy: ProxyThread, endpoint: CredentialEndpoint
) -> None:
    worker = fleet.start("w", endpoint.environment, leases={"duration": "10s"})
    fleet.wait_for(aws.write(fleet.table, 5, range(1, 2)))
    endpoint.key = "KEY2"
    refusal = {"code": "ExpiredTokenException", "status": 400, "times": 100_000}
    proxy.call("fault", "*", signed_with="KEY1", **refusal)
    fleet.wait_for(aws.write(fleet.table, 5, range(2, 6)), 20)

    def count(event: str) -> int:
        return [entry["event"] for entry in worker.events()].count(event)

    wait_until(lambda: count("credentials.renewed") == 2, 20, "each of the two loops has the new ones")
    assert count("session.fenced") == 0


def test_permissions_and_keys_that_are_still_spreading_are_waited_for(
    aws: Aws, fleet: Fleet, proxy: ProxyThread, endpoint: CredentialEndpoint
) -> None:
    """What was created a moment ago is not known everywhere: refusals at the start are asked again."""
    proxy.call("fault", "DescribeTable", code="UnrecognizedClientException", status=400, times=2)
    proxy.call("fault", "DescribeStream", code="AccessDeniedException", status=400, times=2)
    worker = fleet.start("w", endpoint.environment)
    fleet.wait_for(aws.write(fleet.table, 5, range(1, 2)), 40)
    assert [entry["event"] for entry in worker.events()].count("start.waiting") >= 3
