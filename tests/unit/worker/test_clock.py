"""The clock that decides: heard from the services, beside a machine's own that may be wrong or jump."""

import math

import structlog

from consumer.operate.metrics import Metrics
from consumer.worker.clock import HeardClock
from consumer.worker.reporting import ClockWatch

NOON = 1_800_000_000.0
DAY = 86_400.0


class Machine:
    """Two clocks by hand."""

    def __init__(self):
        self.time = 50.0
        self.wrong_by = 0.0

    def monotonic(self):
        return self.time

    def wall(self):
        return NOON + self.time + self.wrong_by


def test_the_machine_s_time_until_a_service_has_said_one_and_nothing_is_decided_by_it():
    clock = HeardClock(Machine())
    assert (clock.wall(), clock.trusted(), clock.ahead()) == (NOON + 50, -math.inf, 0.0)


def test_a_wrong_clock_and_a_jump_of_a_day_change_nothing():
    machine = Machine()
    clock = HeardClock(machine)
    clock.heard(NOON + 50)
    for wrong_by in (240.0, DAY, -DAY, 30.0):
        machine.wrong_by = wrong_by
        assert clock.wall() == NOON + 50
        assert clock.ahead() == wrong_by
        assert clock.trusted() == (NOON + 50 if wrong_by == 30.0 else -math.inf)


def test_it_goes_on_between_two_answers():
    machine = Machine()
    clock = HeardClock(machine)
    clock.heard(NOON + 50)
    machine.time += 100
    assert clock.wall() == NOON + 150
    assert NOON + 139 < clock.trusted() <= NOON + 150


def test_a_thousand_answers_a_second_are_one_date():
    machine = Machine()
    clock = HeardClock(machine)
    for _ in range(1000):
        clock.heard(NOON + 50)
        machine.time += 0.001
    machine.time = 51.2
    assert clock.wall() == NOON + 51.2, "the first of them counts"


def test_operators_are_told_when_the_clocks_begin_and_end_to_differ():
    machine, metrics = Machine(), Metrics()
    clock = HeardClock(machine)
    clock.heard(NOON + 50)
    watch = ClockWatch(clock, metrics)
    with structlog.testing.capture_logs() as logs:
        for wrong_by in (0.0, 59.0, 240.0, 241.0, -DAY, 1.0, 0.0):
            machine.wrong_by = wrong_by
            watch.look()
            assert f"stream_consumer_clock_ahead_seconds {wrong_by}".encode() in metrics.render()[0]
    assert [(entry["event"], entry["log_level"], entry["ahead"]) for entry in logs] == [
        ("clock.differs", "warning", 240.0),
        ("clock.agrees", "info", 1.0),
    ]
