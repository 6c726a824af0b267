"""Real processes, a real DynamoDB API, real faults: what dies, what is cut off, and what somebody deletes."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.fleet import ALONE, LEASE_SECONDS, Fleet, closing, duplicates, out_of_order, wait_until
from tests.e2e.hurt import (
    all_is_written,
    has_event,
    key_of,
    lease_rows,
    make_lease_table,
    unexplained,
    wait_owned,
)
from tests.e2e.test_fleet import Load, share_evenly, stale_starts
from tests.support.reshard_proxy import ProxyThread

SHARDS = 4
CHECKPOINT = 0.5  # seconds, as in Fleet.config
pytestmark = pytest.mark.behind_proxy(shards=SHARDS)


def through(fleet: Fleet, lease_proxy: ProxyThread) -> dict[str, Any]:
    """Settings of a worker whose lease table lies behind the lease proxy."""
    endpoints = fleet.config()["aws"]["endpoints"]
    return {"aws": {"endpoints": {**endpoints, "dynamodb": lease_proxy.endpoint}}}


# --- processes that die -------------------------------------------------------------------------------


@pytest.mark.soak
def test_sigkill_storm(aws: Aws, fleet: Fleet) -> None:
    """Three workers, one of them killed every second and a half and replaced: nothing lost, nothing out of order, and
    every repetition was in flight or not yet written down when its worker was killed."""
    settings: dict[str, Any] = {"leases": {"duration": "2s"}, "batch": {"batch_size": 5}}
    slow = {"HANDLER_SECONDS": "0.02"}
    rng, killed_at = random.Random(7), {}
    alive = [fleet.start(f"w{n}", slow, **settings) for n in range(3)]
    wait_until(lambda: sum(len(worker.owned()) for worker in alive) == SHARDS, 30, "all shards are owned")
    load = Load(aws, fleet.table, versions=20)
    for number in range(3, 7):
        time.sleep(1.5)  # the storm's rhythm, not a synchronisation
        victim = alive.pop(rng.randrange(len(alive)))
        killed_at[victim.name] = time.monotonic()
        victim.send(signal.SIGKILL)
        alive.append(fleet.start(f"w{number}", slow, **settings))
    fleet.wait_for(load.finish(), 60)
    journal = fleet.journal()
    assert out_of_order(journal) == 0
    assert stale_starts(journal) == 0
    assert unexplained(journal, killed_at, window=CHECKPOINT + 1.5) == 0


@pytest.mark.soak
def test_killed_in_the_middle_of_its_drain(aws: Aws, fleet: Fleet) -> None:
    """SIGTERM, and SIGKILL before the drain is over, as from an orchestrator that has no patience: what was in flight
    comes again, what was handed over before does not, and nothing is lost."""
    settings: dict[str, Any] = {"batch": {"batch_size": 2}}
    slow = {"HANDLER_SECONDS": "0.1"}
    victim, other = (fleet.start(name, slow, **settings) for name in ("victim", "other"))
    share_evenly(fleet, SHARDS)
    load = Load(aws, fleet.table, versions=2)
    wait_until(lambda: any(line[2] == "victim" for line in fleet.journal()), 30, "it works")
    victim.send(signal.SIGTERM)
    wait_until(lambda: has_event(victim, "daemon.stopping"), 10, "it stops")
    killed_at = {"victim": time.monotonic()}
    victim.send(signal.SIGKILL)
    fleet.wait_for(load.finish(), 120)
    journal = fleet.journal()
    assert out_of_order(journal) == 0
    assert stale_starts(journal) == 0
    assert unexplained(journal, killed_at, window=CHECKPOINT + 2.0) == 0
    wait_owned(other, SHARDS)


def test_a_wedged_worker_ends_itself_and_shows_where_it_hangs(aws: Aws, fleet: Fleet) -> None:
    """An inline handler never gives the main loop back: no renewal any more, exit 70, all stacks in the log, and what
    it held up is handled elsewhere."""
    inline = {
        "kind": "python",
        "isolation": "inline",
        "target": "journal_handler:blocks_the_loop",
        "timeout": "2s",
    }
    victim = fleet.start("victim", handler=inline)
    wait_owned(victim, SHARDS)
    aws.dynamodb.put_item(TableName=fleet.table, Item={"pk": {"S": "block"}, "version": {"N": "1"}})
    expected = aws.write(fleet.table, 40, range(1, 3)) | {("block", 1)}
    assert victim.wait(40) == 70
    log = victim.log.read_text()
    assert has_event(victim, "process.wedged")
    assert "Current thread" in log
    assert "in blocks_the_loop" in log
    assert "Thread 0x" in log
    seen = fleet.handled()
    fleet.forget_journal()
    other = fleet.start("other", handler=inline)
    fleet.wait_for((expected - seen) | {("block", 1)}, 20)
    wait_owned(other, SHARDS)


def test_a_handler_that_ignores_its_cancellation_is_left_behind(aws: Aws, fleet: Fleet) -> None:
    """SIGTERM, and the call does not end: exit 70 shortly after the grace; the record is handled again elsewhere."""
    inline = {
        "kind": "python",
        "isolation": "inline",
        "target": "journal_handler:ignores_its_cancellation",
        "timeout": "60s",
    }
    settings: dict[str, Any] = {"handler": inline, "shutdown": {"grace": "1s"}}
    expected = aws.write(fleet.table, 1, range(1, 2))
    victim = fleet.start("victim", **settings)
    fleet.wait_for(expected, 20)
    victim.send(signal.SIGTERM)
    assert victim.wait(1 + 2 + 3) == 70
    assert has_event(victim, "shutdown.overrun")
    fleet.forget_journal()
    fleet.start("other", **settings)
    fleet.wait_for(expected, 20)


def test_two_workers_with_the_same_host_name_and_process_id(aws: Aws, fleet: Fleet) -> None:
    """PID 1 in two containers of one name: an incarnation has more than that, so neither takes the other for itself."""
    one = fleet.start("one", under=ALONE)
    two = fleet.start("two", under=ALONE)
    share_evenly(fleet, SHARDS)
    names = [worker.status()["incarnation"] for worker in (one, two)]
    assert {name.rsplit("/", 2)[0] for name in names} == {names[0].rsplit("/", 2)[0]}
    assert len({name.split("/")[1] for name in names}) == 1
    fleet.wait_for(aws.write(fleet.table, 50, range(1, 5)))
    assert duplicates(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0


# --- the way to the lease table -----------------------------------------------------------------------


@pytest.mark.soak
def test_lost_late_and_reset_lease_writes(aws: Aws, fleet: Fleet, lease_proxy: ProxyThread) -> None:
    """Half of one worker's lease writes are applied without an answer, reset or delayed beyond their time-out, while
    a second worker comes and goes: nothing lost, nothing out of order, nobody starts what is not his."""
    shaky = fleet.start("shaky", **through(fleet, lease_proxy))
    wait_owned(shaky, SHARDS)
    load = Load(aws, fleet.table, versions=20)
    for operation in ("UpdateItem", "PutItem", "TransactWriteItems"):
        lease_proxy.call("fault", operation, kind="lose_response", of_ten=3, times=1000)
        lease_proxy.call("fault", operation, kind="lose_request", of_ten=2, times=1000)
        lease_proxy.call("fault", operation, kind="delay", seconds=2.5, of_ten=1, times=1000)
    steady = fleet.start("steady")
    wait_until(lambda: len(steady.owned()) >= 1, 40, "a shard is handed over")
    steady.send(signal.SIGTERM)
    assert steady.wait() == 0
    fleet.wait_for(load.finish(), 60)
    lease_proxy.call("clear_faults")
    wait_owned(shaky, SHARDS)
    wait_until(lambda: all_is_written(shaky), 20, "the frontier is written")
    assert out_of_order(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0
    assert not [e for e in shaky.events() if e["event"] in ("shard.worker_failed", "shard.gap", "lease.put_back")]


@pytest.mark.soak
def test_a_throttled_lease_table(aws: Aws, fleet: Fleet, lease_proxy: ProxyThread) -> None:
    """Nine of ten lease-table requests of one worker are throttled for two lease durations: at most one needless
    take-over, and nothing lost or out of order."""
    throttled = fleet.start("throttled", **through(fleet, lease_proxy))
    fleet.start("other")
    share_evenly(fleet, SHARDS)
    load = Load(aws, fleet.table, versions=20)
    lease_proxy.call("fault", "*", code="ThrottlingException", status=400, of_ten=9, times=100_000)
    until = time.monotonic() + 2 * LEASE_SECONDS
    wait_until(lambda: time.monotonic() > until, 60, "the throttling has its time")
    lease_proxy.call("clear_faults")
    fleet.wait_for(load.finish(), 60)
    share_evenly(fleet, SHARDS)
    assert throttled.metric('stream_consumer_throttles_total{operation="UpdateItem"}') > 0
    assert len([e for e in throttled.events() if e["event"] == "session.fenced"]) <= 1
    assert out_of_order(fleet.journal()) == 0
    assert stale_starts(fleet.journal()) == 0


def test_a_worker_cut_off_from_the_lease_table_only(aws: Aws, fleet: Fleet, lease_proxy: ProxyThread) -> None:
    """It still reads the stream and could call its handler, and must not: it starts nothing when its lease is over by
    its own clock, the other goes on, and after the cure it joins again."""
    cut_off = fleet.start("cut-off", **through(fleet, lease_proxy))
    other = fleet.start("other")
    share_evenly(fleet, SHARDS)
    load = Load(aws, fleet.table, versions=20)
    wait_until(lambda: len(fleet.handled()) > 200, 30, "work is under way")
    lease_proxy.call("fault", "*", kind="delay", seconds=30, times=100_000)  # a black hole: no answer at all
    cut_at = time.monotonic()
    wait_owned(other, SHARDS, 5 * LEASE_SECONDS)
    fleet.wait_for(load.finish() | aws.write(fleet.table, 200, range(21, 23)), 60)
    last = max(line[5] for line in fleet.journal() if line[2] == "cut-off")
    assert last <= cut_at + LEASE_SECONDS + 0.5
    assert stale_starts(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0
    lease_proxy.call("clear_faults")
    wait_until(lambda: len(cut_off.owned()) == 2, 20, "it has a share again")


@pytest.mark.soak
def test_a_lease_table_that_is_gone_at_the_shutdown(aws: Aws, fleet: Fleet, lease_proxy: ProxyThread) -> None:
    """Nothing can be written: exit 70 when the grace is over, and the next worker takes the leases when they expire."""
    worker = fleet.start("w1", shutdown={"grace": "2s"}, **through(fleet, lease_proxy))
    fleet.wait_for(aws.write(fleet.table, 40, range(1, 3)))
    wait_until(lambda: all_is_written(worker), 10, "the frontier is written")
    lease_proxy.call("fault", "*", kind="delay", seconds=30, times=100_000)
    worker.send(signal.SIGTERM)
    assert worker.wait(2 + 2 + 3) == 70
    assert has_event(worker, "shutdown.overrun")
    fleet.start("w2")
    fleet.wait_for(aws.write(fleet.table, 40, range(3, 5)), 30)
    assert duplicates(fleet.journal()) == 0


# --- rows that somebody damages -----------------------------------------------------------------------


def test_lease_rows_deleted_under_their_owner(aws: Aws, fleet: Fleet) -> None:
    """All of them, idle and busy: they come back as the owner knows them, without a restart; nothing is repeated."""
    worker = fleet.start("w1")
    wait_owned(worker, SHARDS)
    fleet.wait_for(aws.write(fleet.table, 50, range(1, 4)))
    wait_until(lambda: all_is_written(worker), 10, "the frontier is written")
    before = {row["sk"]["S"]: (row["owner"], row["epoch"]) for row in lease_rows(aws, fleet)}
    for row in lease_rows(aws, fleet):
        aws.dynamodb.delete_item(TableName=f"leases-{fleet.table}", Key=key_of(row))
    wait_until(lambda: len(lease_rows(aws, fleet)) == SHARDS, 10, "the rows are back")
    assert {row["sk"]["S"]: (row["owner"], row["epoch"]) for row in lease_rows(aws, fleet)} == before
    load = Load(aws, fleet.table, versions=8)
    wait_until(lambda: len(fleet.handled()) > 400, 30, "work is under way")
    for row in lease_rows(aws, fleet):
        aws.dynamodb.delete_item(TableName=f"leases-{fleet.table}", Key=key_of(row))
    fleet.wait_for(load.finish())
    wait_until(lambda: len(lease_rows(aws, fleet)) == SHARDS, 10, "the rows are back again")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert has_event(worker, "lease.put_back")
    fleet.start("w2")
    more = {("late", n) for n in range(1, 4)}
    for _, n in sorted(more):
        item = {"pk": {"S": "late"}, "version": {"N": str(n)}}
        aws.dynamodb.put_item(TableName=fleet.table, Item=item)
    fleet.wait_for(more)
    assert {line[2] for line in fleet.journal() if line[0] != "late"} == {"w1"}
    assert out_of_order([line for line in fleet.journal() if line[0] == "late"]) == 0


def test_the_lease_table_dropped_and_made_anew(aws: Aws, fleet: Fleet) -> None:
    """Work stops within a lease duration and no worker makes the table by itself; when it is back, empty, the same
    processes put back what they know and go on where they were."""
    make_lease_table(aws, fleet)
    settings = {"leases": {"create_table": False}}
    workers = [fleet.start(name, **settings) for name in ("w1", "w2")]
    share_evenly(fleet, SHARDS)
    fleet.wait_for(aws.write(fleet.table, 50, range(1, 4)))
    wait_until(lambda: all(all_is_written(worker) for worker in workers), 10, "the frontiers are written")
    aws.dynamodb.delete_table(TableName=f"leases-{fleet.table}")
    dropped_at = time.monotonic()
    wait_until(lambda: time.monotonic() > dropped_at + LEASE_SECONDS + 0.5, 30, "the beliefs are over")
    lost_time = aws.write(fleet.table, 50, range(4, 6))
    wait_until(lambda: time.monotonic() > dropped_at + LEASE_SECONDS + 2.5, 30, "they had their chance")
    assert not fleet.handled() & lost_time
    assert f"leases-{fleet.table}" not in aws.dynamodb.list_tables()["TableNames"]
    assert [worker.process.poll() for worker in workers] == [None, None]
    make_lease_table(aws, fleet)
    fleet.wait_for(lost_time, 30)
    share_evenly(fleet, SHARDS)
    assert [worker.process.poll() for worker in workers] == [None, None]
    assert out_of_order(fleet.journal()) == 0
    assert duplicates(fleet.journal()) == 0


def test_a_corrupt_checkpoint_quarantines_its_shard_only(aws: Aws, fleet: Fleet) -> None:
    """Garbage in one row: the log, the metric and the status page name the shard, the others go on, nothing is guessed;
    repaired, it goes on from there."""
    first = fleet.start("w1")
    fleet.wait_for(aws.write(fleet.table, 60, range(1, 3)))
    wait_until(lambda: all_is_written(first), 10, "the frontier is written")
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    bad = lease_rows(aws, fleet)[0]
    shard_id = bad["sk"]["S"].removeprefix("shard#")
    write = {"TableName": f"leases-{fleet.table}", "Key": key_of(bad), "UpdateExpression": "SET #l = :v"}
    aws.dynamodb.update_item(
        **write, ExpressionAttributeNames={"#l": "low"}, ExpressionAttributeValues={":v": {"S": "not a number"}}
    )
    expected = aws.write(fleet.table, 60, range(3, 5))
    theirs = {line[0] for line in fleet.journal() if line[3] == shard_id}
    second = fleet.start("w2")
    fleet.wait_for({(key, version) for key, version in expected if key not in theirs}, 30)
    wait_until(lambda: second.metric('stream_consumer_shards{state="quarantined"}') == 1, 10, "the metric")
    (shown,) = [shard for shard in second.status()["shards"] if shard["shard_id"] == shard_id]
    assert "low is not a sequence number" in shown["note"]
    (told,) = [e for e in second.events() if e["event"] == "shard.quarantined"]
    assert (told["shard_id"], told["level"]) == (shard_id, "error")
    assert not {(key, version) for key, version in fleet.handled() if key in theirs and version > 2}
    low = {":v": bad["low"]}
    aws.dynamodb.update_item(**write, ExpressionAttributeNames={"#l": "low"}, ExpressionAttributeValues=low)
    fleet.wait_for(expected, 20)
    assert duplicates(fleet.journal()) == 0
    assert out_of_order(fleet.journal()) == 0


def test_two_applications_on_one_lease_table(aws: Aws, fleet: Fleet) -> None:
    """Different names live side by side on one stream; the same name for another table ends with 78 and says so."""
    fleet.start("one")
    two = fleet.start("two", application="another", leases={"table": f"leases-{fleet.table}"})
    wait_owned(two, SHARDS)
    expected = aws.write(fleet.table, 30, range(1, 4))

    def handled_by(name: str) -> set[tuple[str, int]]:
        return {(line[0], line[1]) for line in fleet.journal() if line[2] == name}

    wait_until(lambda: expected == handled_by("one") == handled_by("two"), 30, "both handle everything")
    foreign = fleet.start("foreign", source={"table": aws.table()}, leases={"table": f"leases-{fleet.table}"})
    assert foreign.wait() == 78
    assert f":table/{fleet.table}, not arn:" in foreign.log.read_text().splitlines()[-1]


# --- the stream ---------------------------------------------------------------------------------------


def stream(aws: Aws, table: str, *, enabled: bool) -> None:
    view = {"StreamViewType": "NEW_AND_OLD_IMAGES"} if enabled else {}
    aws.dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": enabled, **view})


@pytest.mark.soak  # the old stream is left at its own pace, and what a new one changes is simulated
def test_a_stream_disabled_and_enabled_again(aws: Aws, tmp_path: Path) -> None:
    """A new ARN while two workers run: the old stream is finished first, then both go on with the new one without a
    restart, also what was written to it before the switch. Meanwhile the same for a table of which nobody reads the
    stream: the next start finds the old one unfinished, and reads the rest of it before the new one."""
    for name in ("two", "none"):
        (tmp_path / name).mkdir()
    with (
        closing(Fleet(aws.endpoint, tmp_path / "two", aws.table())) as fleet,
        closing(Fleet(aws.endpoint, tmp_path / "none", aws.table())) as later,
    ):
        workers = [fleet.start(name, {"HANDLER_SECONDS": "0.05"}, batch={"batch_size": 5}) for name in ("w1", "w2")]
        first = later.start("w1")
        later.wait_for(aws.write(later.table, 30, range(1, 3)))
        first.send(signal.SIGTERM)
        assert first.wait() == 0
        of_later = aws.write(later.table, 30, range(3, 5))
        wait_until(lambda: sum(len(worker.owned()) for worker in workers) == 1, 30, "the shard is owned")
        old = aws.write(fleet.table, 40, range(1, 11))
        wait_until(lambda: len(fleet.handled()) > 20, 30, "work is under way")
        for table in (fleet.table, later.table):
            stream(aws, table, enabled=False)
            stream(aws, table, enabled=True)
        new = aws.write(fleet.table, 40, range(11, 16))
        of_later |= aws.write(later.table, 30, range(5, 7))
        later.start("w2")
        fleet.wait_for(old | new, 80)
        later.wait_for(of_later, 80)
        for journal in (fleet.journal(), later.journal()):
            assert out_of_order(journal) == 0
            assert duplicates(journal) == 0
        assert any(has_event(worker, "stream.switched") for worker in workers)
        latest = aws.dynamodb.describe_table(TableName=fleet.table)["Table"]["LatestStreamArn"]
        wait_until(lambda: {w.status()["stream_arn"] for w in workers} == {latest}, 20, "both read the new stream")
        assert len({row["pk"]["S"] for row in lease_rows(aws, fleet)}) == 2


def test_the_source_table_is_deleted(aws: Aws, tmp_path: Path) -> None:
    """No crash loop and nothing given up: the daemon stays, and its log and its status say what is missing."""
    with closing(Fleet(aws.endpoint, tmp_path, aws.table())) as fleet:
        worker = fleet.start("w1")
        fleet.wait_for(aws.write(fleet.table, 20, range(1, 3)))
        aws.dynamodb.delete_table(TableName=fleet.table)
        wait_until(lambda: has_event(worker, "stream.table_missing"), 20, "the log says so")
        wait_until(lambda: "stream.table_missing" in str(worker.status()), 20, "the status says so")
        assert worker.process.poll() is None
        assert len(worker.owned()) == 1
        assert not has_event(worker, "shard.gap")
        assert not [row for row in lease_rows(aws, fleet) if row["state"]["S"] in ("done", "halted")]
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
