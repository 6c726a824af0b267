"""`check-config --aws`: finds what `run` would stumble over, all of it at once, and changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import output_of
from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, closing
from tests.support.reshard_proxy import ProxyThread

READS = ("GetShardIterator", "GetRecords", "GetItem", "Query")
WRITES = ("PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems")


@pytest.fixture
def fleet(aws: Aws, proxy: ProxyThread, tmp_path: Path) -> Iterator[Fleet]:
    with closing(Fleet(proxy.endpoint, tmp_path, aws.table(), aws.queue()[1])) as fleet:
        yield fleet


def check(fleet: Fleet, **overrides: Any) -> tuple[int, str]:
    return output_of(fleet, "check-config", "{config}", "--aws", **overrides)


@pytest.fixture
def leases(fleet: Fleet) -> str:
    """The name of a lease table that is there."""
    assert output_of(fleet, "init", "--config", "{config}")[0] == 0
    return f"leases-{fleet.table}"


def test_all_is_asked_for_and_nothing_is_changed(aws: Aws, fleet: Fleet, proxy: ProxyThread, leases: str) -> None:
    """Exit 0; every operation of the daemon was asked for, and the table is as empty as before."""
    code, said = check(fleet)
    assert code == 0, said
    for operation in (*READS, *WRITES):
        assert proxy.call("calls_of", operation) > 0, operation
    assert aws.dynamodb.scan(TableName=leases)["Items"] == []


def test_a_stream_without_images_is_a_warning(aws: Aws, tmp_path: Path) -> None:
    with closing(Fleet(aws.endpoint, tmp_path, aws.table(view="KEYS_ONLY"), aws.queue()[1])) as fleet:
        assert output_of(fleet, "init", "--config", "{config}")[0] == 0
        code, said = check(fleet)
        assert code == 0
        assert "warning: the stream's view type is KEYS_ONLY: records hold no images" in said
        assert output_of(fleet, "check-config", "{config}", "--aws", "--strict")[0] == 78


@pytest.mark.parametrize("operation", [*READS, *WRITES])
def test_a_missing_permission_is_named(operation: str, fleet: Fleet, proxy: ProxyThread, leases: str) -> None:
    """Exit 77, whatever is missing."""
    proxy.call("fault", operation, code="AccessDeniedException", status=400, times=1000)
    code, said = check(fleet)
    assert code == 77, said
    action = "dynamodb:PutItem" if operation == "TransactWriteItems" else f"dynamodb:{operation}"
    assert f"{action} on " in said


def test_all_missing_permissions_are_named_at_once(fleet: Fleet, proxy: ProxyThread, leases: str) -> None:
    """One line for each."""
    missing = ("GetRecords", "Query", "UpdateItem", "DeleteItem")
    for operation in missing:
        proxy.call("fault", operation, code="AccessDeniedException", status=400, times=1000)
    _, said = check(fleet)
    assert [operation for operation in missing if f"dynamodb:{operation} on " in said] == list(missing)


def test_a_filter_that_can_never_match_is_an_error(aws: Aws, fleet: Fleet, leases: str) -> None:
    """Keys that the table does not have: nothing would ever be handled, and nothing would say so."""
    good = {"dynamodb": {"Keys": {"pk": {"S": ["a"]}}}}
    code, output = check(fleet, filters=[good, {"dynamodb": {"Keys": {"id": {"S": ["a"]}}}}])
    assert code == 78
    assert "filters: filters[1].dynamodb.Keys.id.S can never match: the table's keys are pk" in output
    assert check(fleet, filters=[good])[0] == 0


def test_a_name_of_the_key_is_no_attribute_to_redact(fleet: Fleet, leases: str) -> None:
    """A key says which item a record is about, and stays."""
    code, output = check(fleet, on_failure={"redact": ["ssn", "pk"]})
    assert code == 78
    assert f"redaction: on_failure.redact names pk, of the key of {fleet.table}" in output
    code, output = check(fleet, on_failure={"redact": ["ssn", "*.pk"]})
    assert (code, "redaction: ok" in output) == (0, True)


def test_a_missing_lease_table_is_only_wrong_when_nothing_creates_it(fleet: Fleet) -> None:
    """78 and the command that creates it; 0 when `run` would create it."""
    code, said = check(fleet, leases={"create_table": False})
    assert code == 78
    assert "stream-consumer init" in said
    code, said = check(fleet)
    assert (code, "is created by run" in said) == (0, True)


def test_an_application_of_another_table_is_found(aws: Aws, fleet: Fleet, leases: str) -> None:
    """78, as `run` would end: the name is taken by the application that reads another table."""
    aws.dynamodb.put_item(
        TableName=leases,
        Item={
            "pk": {"S": f"app-{fleet.table}"},
            "sk": {"S": "meta"},
            "table_arn": {"S": "another"},
            "schema_version": {"N": "3"},
        },
    )
    code, said = check(fleet)
    assert code == 78
    assert "it reads another, not" in said
