"""An incarnation ends in bounded time, whatever user code does; and a start that may not read ends, too."""

from __future__ import annotations

import asyncio

import pytest

from consumer.domain.errors import PermissionDenied
from consumer.domain.outcome import HandlerCall, Outcome
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import APPLICATION, Simulation
from consumer.worker.fleet.incarnation import HARD_STOP_MARGIN
from consumer.worker.fleet.stream_replacement import FOLLOW_INTERVAL
from tests.support.reported import board_of
from tests.support.simulated_fleet import Recorder, add, checked, until_owned, until_settled, write
from tests.support.simulated_shards import Refusal

GRACE = 5.0
ENDS_WITHIN = {"shutdown": {"grace": f"{GRACE:g}s"}}


class Stuck:
    """A behaviour like that of a plain function in a thread which hangs: nothing ends its call but the process."""

    async def __call__(self, call: HandlerCall) -> Outcome:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


async def _until_gone(world: Simulation, worker: SimulatedWorker, process: object, seconds: float) -> None:
    await world.until(lambda: worker.process is not process, seconds, "the process has ended itself")


def test_a_stuck_call_ends_the_process_after_a_fence() -> None:
    """The next incarnation would wait for that call for ever: no lease, no reading, and nothing that says so."""
    world = Simulation("stuck after a fence", config=ENDS_WITHIN)

    async def scenario(world: Simulation) -> None:
        victim, recorder = add(world, "victim", Stuck())
        world.put("key")
        await world.until(lambda: bool(recorder.running), 30.0, "the call is stuck")
        process = victim.process
        victim.links["session"].weather = Weather(lose_request=1.0)
        add(world, "other")
        await until_settled(world)
        victim.links["session"].weather = Weather()
        victim.handler = Recorder()
        await _until_gone(world, victim, process, GRACE + HARD_STOP_MARGIN + 5.0)
        assert victim.killed
        await world.until(lambda: victim.running and world.balanced(), 60.0, "the next process takes part")
        await world.finish()

    checked(world, scenario)


def test_a_stuck_call_ends_the_process_after_a_change_of_stream() -> None:
    """The application reads another stream by now, and this worker has to follow."""
    world = Simulation("stuck at a change", config=ENDS_WITHIN)

    async def scenario(world: Simulation) -> None:
        worker, recorder = add(world, "worker", Stuck())
        process = worker.process
        world.put("key")
        await world.until(lambda: bool(recorder.running), 60.0, "the call is stuck")
        worker.handler = Recorder()
        world.enable_again()
        world.table.streams[APPLICATION] = world.stream.arn  # by hand
        await _until_gone(world, worker, process, 2 * FOLLOW_INTERVAL + GRACE + HARD_STOP_MARGIN)
        assert worker.killed

    world.run(scenario)
    assert not [one for one in world.history.violations if "liveness" in str(one)]


def test_an_end_in_time_ends_no_process() -> None:
    """Fenced with nothing that hangs: the same process goes on as another incarnation."""
    world = Simulation("fenced", config=ENDS_WITHIN)

    async def scenario(world: Simulation) -> None:
        victim, _ = add(world, "victim")
        await until_owned(world, victim)
        process, incarnation = victim.process, victim.incarnation
        victim.links["session"].weather = Weather(lose_request=1.0)
        add(world, "other")
        await world.sleep(20.0)
        victim.links["session"].weather = Weather()
        await world.until(lambda: victim.incarnation not in ("", incarnation), 60.0, "another incarnation")
        await world.sleep(3 * (GRACE + HARD_STOP_MARGIN))
        assert victim.process is process
        await world.finish()

    checked(world, scenario)


DENIED = {name: PermissionDenied(f"dynamodb:{name}", "the stream") for name in ("GetShardIterator", "GetRecords")}


@pytest.mark.parametrize(("operation", "action"), [("iterator", "GetShardIterator"), ("get_records", "GetRecords")])
def test_a_start_that_stays_denied_gives_up(operation: str, action: str) -> None:
    """Exit code 77, with every lease given back: others can read what it may not. It is asked for twenty seconds."""
    world = Simulation(f"denied {operation}")
    given_up: list[float] = []

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        worker, _ = add(world, "worker")
        process = worker.process
        Refusal(worker.links["stream"], DENIED[action], operation)
        await until_owned(world, worker)
        began = world.loop.now
        await _until_gone(world, worker, process, 40.0)
        given_up.append(world.loop.now - began)
        assert world.rows()[world.stream.open_shards()[0]].owner is None
        await until_settled(world)
        await world.finish()

    checked(world, scenario)
    assert 19.0 < given_up[0] < 25.0


def test_a_worker_that_was_refused_is_never_ready() -> None:
    """Nor when it owns nothing, because it has taken nothing yet or gives its leases back: it does not stand by."""
    world = Simulation("denied, and slow to leave")

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "worker")
        process = worker.process
        Refusal(worker.links["stream"], DENIED["GetRecords"], "get_records")
        await world.until(lambda: worker.coordinator is not None, 60.0, "its session is open")
        coordinator = worker.coordinator
        assert coordinator is not None
        await coordinator.planned.wait()
        worker.links["table"].weather = Weather(slow=1.0, slowest=1.5)
        owned: list[int] = []
        while worker.process is process:
            board = board_of(worker)
            assert (board.started, board.readiness()[0]) == (False, False), owned
            owned.append(len(coordinator.workers))
            await world.sleep(0.2)
        assert (owned[0], max(owned), owned[-1]) == (0, 1, 0)

    world.run(scenario)


def test_a_permission_that_comes_late_is_waited_for() -> None:
    """It spreads within seconds; and a daemon that has read once waits for ever."""
    world = Simulation("denied for a while")

    async def scenario(world: Simulation) -> None:
        write(world, 10)
        worker, _ = add(world, "worker")
        process = worker.process
        refusal = Refusal(worker.links["stream"], DENIED["GetRecords"], "get_records")
        await until_owned(world, worker)
        await world.sleep(15.0)
        assert board_of(worker).readiness() == (
            False,
            f"no shard of this worker can be read: {DENIED['GetRecords']}",
        )
        refusal.end()
        await until_settled(world)
        assert board_of(worker).readiness() == (True, "ready")
        again = Refusal(worker.links["stream"], DENIED["GetRecords"], "get_records")
        write(world, 10)
        await world.sleep(120.0)
        assert not board_of(worker).readiness()[0]
        again.end()
        await until_settled(world)
        assert worker.process is process
        await world.finish()

    checked(world, scenario)


def test_readiness_says_why_nothing_can_work() -> None:
    world = Simulation("readiness", shards=2)

    async def scenario(world: Simulation) -> None:
        worker, _ = add(world, "worker")
        await until_owned(world, worker, 2)
        await world.sleep(5.0)
        assert board_of(worker).readiness() == (True, "ready")
        worker.links["stream"].weather = Weather(broken=1.0)
        await world.sleep(60.0)
        ready, why = board_of(worker).readiness()
        assert not ready
        assert why.startswith("no shard of this worker can be read: ")
        worker.links["stream"].weather = Weather()
        await world.sleep(30.0)
        assert board_of(worker).readiness() == (True, "ready")
        worker.links["session"].weather = Weather(lose_request=1.0)
        await world.sleep(12.0)
        assert board_of(worker).readiness() == (
            False,
            "the session could not be renewed in time: no handler call may start",
        )
        worker.links["session"].weather = Weather()
        standby, _ = add(world, "standby")
        standby_2, _ = add(world, "second standby")
        await world.until(world.balanced, 60.0, "balance")
        await world.sleep(5.0)
        assert sorted(world.owned().values()) == [0, 1, 1]
        for one in (worker, standby, standby_2):
            assert board_of(one).readiness() == (True, "ready")
        await world.finish()

    checked(world, scenario)
