"""From an alert at night to an empty queue: the daemon fills it, the handler is mended, `dlq` does the rest."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.conftest import Aws
from tests.e2e.dlq_commands import Dead, by_worker, made
from tests.e2e.fleet import Fleet, out_of_order, wait_until

MENDED = {"MENDED": "yes"}
POISONED = 10  # of 200 keys: 5 %


BOTH = pytest.mark.parametrize("dead", ["sqs", "s3"], indirect=True)


@pytest.fixture
def dead(request: pytest.FixtureRequest, aws: Aws, fleet: Fleet) -> Dead:
    """In a bucket, or where a test says."""
    return made(getattr(request, "param", "s3"), aws, fleet)


@contextmanager
def redriving(fleet: Fleet, dead: Dead, seconds: str) -> Iterator[subprocess.Popen[str]]:
    """A redrive whose calls take so long, from its first call on; killed in the end if it has not ended."""
    slow = MENDED | {"HANDLER_SECONDS": seconds}
    with dead.start("--concurrency", "1", environment=slow) as process:
        try:
            wait_until(lambda: by_worker(fleet.journal(), "redrive"), 60, "the first call")
            yield process
        finally:
            process.kill()


@BOTH
def test_a_night_with_poison_ends_with_everything_handled_once_and_no_letter(
    aws: Aws, fleet: Fleet, dead: Dead
) -> None:
    """5 % of the keys fail; when the handler is mended their records are handled, in order per key, each once."""
    good = aws.write(fleet.table, 190, range(1, 3))
    bad = dead.poison(range(POISONED), range(1, 3))
    dead.letters_of(len(bad))
    fleet.wait_for(good)

    listed = dead.list()
    assert (listed["letters"], listed["records"], len(listed["groups"])) == (20, 20, POISONED)
    assert listed["in_queue"] == (20 if dead.destination.startswith("arn:") else None), "in S3 all are shown"
    assert {group["reason"] for group in listed["groups"]} == {"RetryAttemptsExhausted ValueError"}
    assert "bad0" not in json.dumps(listed), "a key is named by its digest"
    assert dead.list("--reason", "KeyError")["letters"] == 0

    dry = dead.run("redrive", "--dry-run", "--output", "json", environment=MENDED)
    assert dry.returncode == 0, dry.stderr
    results = [json.loads(line) for line in dry.stdout.splitlines()]
    assert Counter(one["result"] for one in results) == {"would_be_handled": 20}
    assert by_worker(fleet.journal(), "redrive") == []

    still_broken = dead.run("redrive", "--key", listed["groups"][0]["key"])
    assert still_broken.returncode == 1, still_broken.stderr
    assert "failed again, 2 times: ValueError: poison" in still_broken.stderr
    assert dead.list()["letters"] == 20, "nothing is deleted that was not handled"

    done = dead.run("redrive", "--concurrency", "4", environment=MENDED)
    assert done.returncode == 0, done.stderr
    assert "20 letters (20 records) handled, 0 left" in done.stdout
    assert sorted(by_worker(fleet.journal(), "redrive")) == sorted(bad), "each once"
    assert fleet.handled() == good | bad
    assert out_of_order(fleet.journal()) == 0
    assert dead.list()["letters"] == 0


def test_what_is_older_than_its_item_is_left_unless_it_is_forced(aws: Aws, fleet: Fleet, dead: Dead) -> None:
    """With order: continue the next version was handled in its time; an old one must not undo it."""
    dead.poison(range(2), range(1, 2))
    aws.dynamodb.put_item(TableName=fleet.table, Item={"pk": {"S": "bad001"}, "version": {"N": "2"}})
    dead.letters_of(2)
    done = dead.run("redrive", "--output", "json", environment=MENDED)
    assert done.returncode == 1
    results = {one["result"]: one["reason"] for one in map(json.loads, done.stdout.splitlines())}
    assert results == {"handled": None, "left": "is older than its item"}
    assert by_worker(fleet.journal(), "redrive") == [("bad000", 1)]
    forced = dead.run("redrive", "--force", environment=MENDED)
    assert forced.returncode == 0, forced.stderr
    assert by_worker(fleet.journal(), "redrive") == [("bad000", 1), ("bad001", 1)]
    assert dead.list()["letters"] == 0


def test_a_redacted_letter_comes_back_with_its_item_as_it_is_now(aws: Aws, fleet: Fleet) -> None:
    """The handler cannot do without the attribute: it gets the value from the table, once for both letters."""
    dead = made("s3", aws, fleet, redact=["version"])
    bad = dead.poison(range(1), range(1, 3))
    dead.letters_of(len(bad))
    assert [one["redacted_attributes"] for one in dead.list()["each"]] == [["version"], ["version"]]

    refused = dead.run("redrive", "--check", "none", environment=MENDED)
    assert refused.returncode == 1
    assert "--check none reads no items" in refused.stderr
    done = dead.run("redrive", environment=MENDED)
    assert done.returncode == 0, done.stderr
    assert "2 letters (2 records) handled, 0 left" in done.stdout
    assert by_worker(fleet.journal(), "redrive") == [("bad000", 2)]
    assert dead.list()["letters"] == 0


@BOTH
def test_a_letter_is_shown_without_its_values_and_deleted_when_somebody_means_it(fleet: Fleet, dead: Dead) -> None:
    dead.poison(range(1), range(1, 2))
    dead.letters_of(1)
    (group,) = dead.list()["groups"]
    shown = dead.run("show", group["id"])
    assert shown.returncode == 0, shown.stderr
    assert group["key"] in shown.stdout
    assert "bad000" not in shown.stdout + shown.stderr
    plain = dead.run("show", "--key", group["key"], "--show-values", "--output", "json")
    (fields,) = json.loads(plain.stdout)
    (record,) = json.loads(fields["payload"])["Records"]
    assert record["dynamodb"]["Keys"] == {"pk": {"S": "bad000"}}
    assert dead.run("show", "0" * 12).returncode == 1
    number = record["dynamodb"]["SequenceNumber"]
    replayed = dead.replay("--from-letter", group["id"], "--dry-run")
    assert replayed.returncode == 0, replayed.stderr
    assert f"from record {number} of shardId-" in replayed.stdout
    assert "1 records" in replayed.stdout
    unknown = dead.replay("--from-letter", "0" * 12, "--dry-run")
    assert unknown.returncode == 2
    assert "no such letter" in unknown.stderr
    assert "bad000" in json.dumps(dead.list("--show-values"))

    asked = dead.run("purge")
    assert asked.returncode == 2
    assert "add --yes to delete 1 letters" in asked.stderr
    assert dead.list()["letters"] == 1
    purged = dead.run("purge", "--yes", "--reason", "ValueError")
    assert purged.returncode == 0, purged.stderr
    assert dead.list()["letters"] == 0


def test_a_stop_leaves_the_rest_and_the_next_run_goes_on(fleet: Fleet, dead: Dead) -> None:
    """Ctrl-C in the middle: calls end, what they handled is deleted, and nothing is handled twice afterwards."""
    bad = dead.poison(range(12), range(1, 2))
    dead.letters_of(len(bad))
    with redriving(fleet, dead, "0.5") as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "stopping" in err
    handled = len(by_worker(fleet.journal(), "redrive"))
    assert 0 < handled < len(bad)
    assert dead.list()["letters"] == len(bad) - handled
    assert dead.run("redrive", environment=MENDED).returncode == 0
    assert sorted(by_worker(fleet.journal(), "redrive")) == sorted(bad)


@pytest.mark.parametrize("dead", ["sqs"], indirect=True)
def test_a_look_that_is_terminated_puts_back_what_it_has_taken(aws: Aws, dead: Dead) -> None:
    """Nobody else would see the letters for five minutes."""
    url = aws.sqs.get_queue_url(QueueName=dead.destination.rpartition(":")[2])["QueueUrl"]
    aws.sqs.send_message(QueueUrl=url, MessageBody="of somebody else")

    def hidden() -> int:
        names = ["ApproximateNumberOfMessagesNotVisible"]
        return int(aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"][names[0]])

    with dead.start(verb="list") as process:
        wait_until(lambda: hidden() == 1, 60, "the message is taken")
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert hidden() == 0


@pytest.mark.parametrize("dead", [pytest.param("sqs", marks=pytest.mark.soak), "s3"], indirect=True)
def test_a_second_redrive_is_told_of_the_first_and_a_killed_one_is_outwaited(fleet: Fleet, dead: Dead) -> None:
    bad = dead.poison(range(6), range(1, 2))
    dead.letters_of(len(bad))
    with redriving(fleet, dead, "5"):
        second = dead.run("redrive", environment=MENDED)
        assert second.returncode == 69
        assert "is being redriven by" in second.stderr
    after = dead.run("redrive", environment=MENDED)
    if ":sqs:" in dead.destination:  # the queue hides what the dead one has taken, for five minutes
        assert after.returncode == 0, after.stderr
        return
    assert after.returncode == 0, after.stderr
    handled = by_worker(fleet.journal(), "redrive")
    assert set(handled) == bad
    assert len(handled) <= len(bad) + 1, "at most the call that was under way is repeated"


def test_a_topic_keeps_no_letters_and_says_what_to_do(aws: Aws, fleet: Fleet) -> None:
    dead = made("sqs", aws, fleet)
    done = dead.run("list", "--from", "arn:aws:sns:us-east-1:123456789012:dead")
    assert done.returncode == 78
    assert "subscribe a queue to it" in done.stderr
    assert "--from QUEUE_ARN" in done.stderr
