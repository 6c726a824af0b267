"""A machine whose clock is wrong gives up no record that is young: what is too old goes by the services' time."""

import subprocess
import sys
import time
from pathlib import Path

from tests.e2e.conftest import Aws
from tests.e2e.fleet import Fleet, duplicates, out_of_order, wait_until
from tests.e2e.hurt import has_event, wait_owned
from tests.support.wrong_clock import WrongClock

AHEAD = "stream_consumer_clock_ahead_seconds"
DAY = 86_400.0
YOUNG = {"max_retry_attempts": -1, "max_record_age": "60s"}


def test_the_clock_is_really_wrong_and_only_the_wall_clock(tmp_path: Path) -> None:
    clock = WrongClock(tmp_path / "clock", 240.0)
    program = "import time; print(time.time(), time.monotonic())"
    output = subprocess.run(
        [sys.executable, "-c", program], env=clock.environment, capture_output=True, check=True, text=True
    ).stdout
    wall, monotonic = map(float, output.split())
    assert 235 < wall - time.time() <= 240
    assert abs(monotonic - time.monotonic()) < 5


def test_four_minutes_ahead_discards_nothing_that_is_younger_than_a_minute(
    aws: Aws, fleet: Fleet, tmp_path: Path
) -> None:
    url, fleet.queue_arn = aws.queue()
    clock = WrongClock(tmp_path / "clock", 240.0)
    worker = fleet.start("w1", clock.environment, retry=YOUNG)
    fleet.wait_for(aws.write(fleet.table, 40, range(1, 11)))
    wait_until(lambda: has_event(worker, "clock.differs"), 10, "it says that its clock is wrong")
    assert 235 < worker.metric(AHEAD) < 245
    assert worker.metric("stream_consumer_dead_letters_total") == 0
    assert aws.messages(url) == []
    assert duplicates(fleet.journal()) == out_of_order(fleet.journal()) == 0
    assert all(shard["lag"] < 60 for shard in worker.owned()), "lag goes by the services' time, too"


def test_a_jump_of_a_day_for_some_seconds_discards_nothing(aws: Aws, fleet: Fleet, tmp_path: Path) -> None:
    """Also what fails at that moment, and would be too old for the stream itself by that clock."""
    url, fleet.queue_arn = aws.queue()
    clock = WrongClock(tmp_path / "clock")
    worker = fleet.start("w1", clock.environment, retry=YOUNG)
    wait_owned(worker, 1)
    aws.poison(fleet.table, "bad", 1)
    wait_until(lambda: worker.metric("stream_consumer_retrying_keys") == 1, 20, "a record fails")
    clock.set(DAY + 60)
    wait_until(lambda: worker.metric(AHEAD) > DAY, 10, "the clock has jumped")
    retried = worker.metric("stream_consumer_retries_total")
    expected = aws.write(fleet.table, 40, range(1, 4))
    fleet.wait_for(expected)
    wait_until(lambda: worker.metric("stream_consumer_retries_total") > retried, 10, "it is tried again")
    clock.set(0.0)
    wait_until(lambda: abs(worker.metric(AHEAD)) < 5 and has_event(worker, "clock.agrees"), 10, "it is right again")
    assert worker.metric("stream_consumer_dead_letters_total") == 0
    assert aws.messages(url) == []
    assert duplicates(fleet.journal()) == 0
