"""``init``: the lease table is made so that neither a slip nor a damaged row costs an application its place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.e2e.commands import output_of
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, closing
from tests.support.reshard_proxy import ProxyThread


@pytest.fixture
def fleet(aws: Aws, proxy: ProxyThread, tmp_path: Path) -> Iterator[Fleet]:
    with closing(Fleet(proxy.endpoint, tmp_path, aws.table(), aws.queue()[1])) as fleet:
        yield fleet


def init(fleet: Fleet, *more: str) -> tuple[int, str]:
    return output_of(fleet, "init", "--config", "{config}", *more)


def recovery(aws: Aws, fleet: Fleet) -> str:
    described = aws.dynamodb.describe_continuous_backups(TableName=f"leases-{fleet.table}")
    status: str = described["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"][
        "PointInTimeRecoveryStatus"
    ]
    return status


def test_a_table_that_is_made_is_protected_and_recoverable(aws: Aws, fleet: Fleet, proxy: ProxyThread) -> None:
    table = f"leases-{fleet.table}"
    # As the service answers for a while about a new table.
    proxy.call("fault", "UpdateContinuousBackups", code="ContinuousBackupsUnavailableException", status=400, times=1)
    assert init(fleet) == (0, f"lease table {table}: created\n")
    assert recovery(aws, fleet) == "ENABLED"
    with pytest.raises(ClientError, match="protect"):
        aws.dynamodb.delete_table(TableName=table)
    # One that is there is left as it is.
    calls = proxy.call("calls_of", "UpdateContinuousBackups")
    assert init(fleet) == (0, f"lease table {table}: already there, and usable\n")
    assert proxy.call("calls_of", "UpdateContinuousBackups") == calls == 2


def test_recovery_can_be_left_out(aws: Aws, fleet: Fleet) -> None:
    assert init(fleet, "--no-point-in-time-recovery")[0] == 0
    assert recovery(aws, fleet) == "DISABLED"


def test_a_role_that_may_not_turn_it_on_makes_the_table_and_is_told(fleet: Fleet, proxy: ProxyThread) -> None:
    proxy.call("fault", "UpdateContinuousBackups", code="AccessDeniedException", status=400, times=10)
    code, said = init(fleet)
    assert code == 0
    assert f"lease table leases-{fleet.table}: created\n" in said
    assert "warning: lease table" in said
    assert "has no point-in-time recovery" in said
    assert "dynamodb:UpdateContinuousBackups" in said
