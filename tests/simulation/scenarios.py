"""The families of random runs, each from one seed: the protocol (leases and sessions under every fault, few records,
thirty minutes), records (many, with failing handlers, batches and dead letters, five minutes), weather (the same with
answers that are none, clocks that are wrong, and records that are given up for their age), and the fleet (no faults:
rolling deploys, more workers, fewer).

All but the last hurt the fleet for most of the time, then heal everything; from then on all must come right within a
bounded time.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from consumer.ports.handler import Handler
from consumer.testing.history import History
from consumer.testing.observed import FunctionHandler
from consumer.testing.simulated_processes import processes
from consumer.testing.simulated_worker import Scripted, SimulatedWorker
from consumer.testing.simulation import Simulation
from consumer.worker.fleet.stream_replacement import FOLLOW_INTERVAL
from tests.simulation import mixed_settings
from tests.simulation.breaker import breaker
from tests.simulation.failing_keys import failing_keys
from tests.simulation.kinesis import kinesis
from tests.simulation.lost_parent import lost_parent
from tests.simulation.parking import blocked, older_view, parked_child, parking
from tests.simulation.protocol_faults import PROTOCOL
from tests.simulation.record_faults import RECORDS, WEATHER, RecordNemesis
from tests.simulation.user_code import UserCode

SETTLED_WITHIN = 240.0  # seconds after healing: the longest back-offs of all parts, one after the other
BALANCED_WITHIN = 60.0
OUTWAITED = 2.2 * mixed_settings.LONGEST  # seconds: a dead worker, and once more when its session row is deleted
START_POSITIONS = ("trim_horizon", "trim_horizon", "latest")
# Seconds from the write of a record to its end, in a fleet that is well: a read that was under way, a pause of 2 s that
# may be a tenth longer, and the next read.
PROMPT = 3.5
IDLE_AT_MOST = 35.0  # between two polls of a shard without records
SLOWEST_IMPORT = 25.0  # seconds until a handler process is ready: twice what a take-over takes
MOST_DRIFT = 0.045  # of a clock's rate: any two differ by less than 10 %

OnEvent = Callable[[str], None] | None
Run = tuple[Simulation, Callable[[Simulation], Awaitable[None]]]  # what a family makes of a seed


def protocol(seed: int | str, on_event: OnEvent = None) -> Run:
    """Thirty virtual minutes of two to four workers: leases and sessions under all faults."""
    rng = random.Random(f"{seed}/protocol")
    config: Mapping[str, Mapping[str, Any]] = {
        "source": {
            "table": "orders",
            "on_gap": "continue",
            "starting_position": rng.choice(START_POSITIONS),
            "poll": {"idle_backoff_max": rng.choice(("10s", "30s"))},
        },
        "checkpoint": {"interval": rng.choice(("1s", "5s", "10s"))},
        "shutdown": {"grace": rng.choice(("5s", "25s"))},
    }
    stream = {"dated": rng.random() < 0.5}
    world = Simulation(seed, shards=rng.randint(1, 4), config=config, on_event=on_event, stream=stream)
    user_code = UserCode(world, busy=rng.choice((0.1, 1.0, 8.0)), failing=0.02)
    kind = world.rng("processes of the handler")

    def handler() -> Handler:
        if kind.random() < 0.5:
            return processes(user_code.outcome, kind, SLOWEST_IMPORT, lambda: user_code.calm)
        return Scripted(user_code.outcome)

    _fleet(world, handler, rng.randint(2, 4), rng)
    for worker in world.workers.values():
        worker.configure(mixed_settings.draw(rng) if rng.random() < 0.4 else {})
    verbs = _verbs(world, PROTOCOL)

    async def scenario(world: Simulation) -> None:
        pause = rng.uniform(10.0, 40.0)
        await _chaos(world, user_code, seconds=1500.0, pause=pause, verbs=verbs, records=(0.0, 12.0))
        user_code.sink.check()

    return world, scenario


def records(seed: int | str, on_event: OnEvent = None, faults: Mapping[str, int] = RECORDS, **retry: Any) -> Run:
    """Five virtual minutes of many records: batches, retries, bisect, partial failures, dead letters, order per key."""
    rng = random.Random(f"{seed}/records")
    config: Mapping[str, Mapping[str, Any]] = {
        "source": {
            "table": "orders",
            "on_gap": "continue",
            "starting_position": rng.choice(START_POSITIONS),
            "poll": {"idle_backoff_max": "2s"},
        },
        "handler": {"kind": "python", "isolation": "inline", "target": "simulated:handler", "timeout": "2s"},
        "leases": {"duration": "5s"},
        "batch": {
            "batch_size": rng.choice((1, 3, 10, 100)),
            "parallelization_factor": rng.choice((1, 2, 8)),
            "report_batch_item_failures": rng.random() < 0.6,
        },
        "retry": {
            "max_retry_attempts": rng.choice((0, 1, 3)),
            "bisect_on_error": rng.random() < 0.6,
            "backoff": {"initial": "200ms", "max": "2s"},
            **retry,
        },
        "checkpoint": {"interval": rng.choice(("500ms", "1s", "5s"))},
        "limits": {"buffer": "1MiB"},
        "shutdown": {"grace": rng.choice(("2s", "10s"))},
    }
    stream = {
        "page_records": rng.choice((3, 20, 1000)),
        "last_page": rng.choice(("with_records", "empty")),
        "jump_every": rng.choice((5, 50)),
        "dated": rng.random() < 0.5,
    }
    world = Simulation(seed, shards=rng.randint(1, 3), config=config, on_event=on_event, stream=stream)
    at_once = world.settings.batch.batch_size * world.settings.batch.parallelization_factor
    busy = 0.02 if at_once < 8 else rng.choice((0.05, 0.3))  # the handler must keep up with the records
    reports = world.settings.batch.report_batch_item_failures
    misbehaves = rng.random() < 0.4
    rarely = 0.2 if misbehaves else 1.0  # or hanging calls cost more time than there is
    user_code = UserCode(world, busy=busy, failing=0.05 * rarely, poison=0.02 * rarely)

    def handler() -> Handler:
        if misbehaves:
            return FunctionHandler(user_code.misbehave, report_failures=reports)
        return Scripted(user_code.outcome)

    _fleet(world, handler, rng.randint(1, 3), rng)
    verbs = _verbs(world, faults)

    async def scenario(world: Simulation) -> None:
        pauses = (0.0, rng.choice((0.7, 2.0)))
        pause = rng.uniform(6.0, 20.0)
        await _chaos(world, user_code, seconds=240.0, pause=pause, verbs=verbs, records=pauses)
        user_code.sink.check()

    return world, scenario


def weather(seed: int | str, on_event: OnEvent = None) -> Run:
    """``records``, and what a network and a machine do besides: something else answers, clocks are wrong by minutes or
    jump by a day, while records are given up for their age."""
    oldest = random.Random(f"{seed}/weather").choice(("1m", "2m"))
    return records(seed, on_event, RECORDS | WEATHER, max_record_age=oldest)


def fleet(seed: int | str, on_event: OnEvent = None) -> Run:
    """No faults: a rolling deploy, half of them of other settings, then more workers; a crash; then one worker. Nothing
    may be handled twice but by the crash, no shard may move more than once for a change, and when nothing changes
    nothing may move."""
    rng = random.Random(f"{seed}/fleet")
    world = Simulation(seed, shards=rng.randint(2, 12), on_event=on_event)
    user_code = UserCode(world, busy=rng.choice((0.05, 0.5)), failing=0.0)
    handler = Scripted(user_code.outcome)
    first = rng.randint(1, 4)
    _fleet(world, lambda: handler, first, rng)
    newcomers = rng.randint(1, 8)
    deployed = mixed_settings.draw(rng) if rng.random() < 0.5 else {}

    async def scenario(world: Simulation) -> None:
        for worker in world.workers.values():
            worker.start()
        writing = asyncio.create_task(_write(world, (0.0, 0.5)))
        await world.until(world.balanced, BALANCED_WITHIN, "the first balance")
        for worker in list(world.workers.values()):
            await worker.stop()
            worker.configure(deployed)
            worker.start()
            await world.until(world.balanced, BALANCED_WITHIN, "balance in the rolling deploy")
            await asyncio.sleep(rng.uniform(0.0, 10.0))
        await asyncio.sleep(10.0)
        await change_fleet(world, up=[world.add_worker(f"n{number}", handler) for number in range(newcomers)])
        for duplicate in world.history.duplicates[:3]:
            world.history.violated("G5 duplicates", f"{duplicate.item.number} was handled twice without any fault")
        for call in world.checkers.cut_off[:3]:  # whatever it had done comes again
            world.history.violated("G5 duplicates", f"a call was cut off without any fault: {call}")
        if rng.random() < 0.5:
            writing.cancel()
            writing = asyncio.create_task(_write(world, (0.0, 4.0)))
            await asyncio.sleep(rng.uniform(5.0, 15.0))
        await crash(world, rng.choice(list(world.workers.values())))
        await change_fleet(world, down=list(world.workers.values())[1:])
        writing.cancel()
        await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled")
        await world.finish()
        user_code.sink.check()

    return world, scenario


async def crash(world: Simulation, worker: SimulatedWorker, slack: float = 0.1) -> None:
    """SIGKILL in a healthy world: peers go on soon, and repeat at most what was settled since the last checkpoint."""
    before, killed, settings = len(world.history.duplicates), world.loop.now, worker.settings
    incarnation = worker.incarnation
    worker.kill()
    del world.workers[worker.name]
    if not world.workers:
        worker.start()
        world.workers[worker.name] = worker
    # 1.1 leases until the fence, then at most a planning cycle each for seeing, fencing and taking
    await world.until(world.balanced, settings.leases.duration * 1.1 + 5.0, "the take-over after a crash")
    await asyncio.sleep(20.0)
    durable = killed - settings.checkpoint.interval - slack
    world.checkers.checkpoints.crashed(incarnation, killed, world.history.duplicates[before:])
    for duplicate in world.history.duplicates[before:]:
        item = duplicate.item
        if item.settled_at is not None and item.settled_at < durable:
            age = killed - item.settled_at
            world.history.violated(
                "G5 duplicates", f"{item.key} v{item.version} was settled {age:.1f} s before a crash"
            )


async def change_fleet(
    world: Simulation, up: Sequence[SimulatedWorker] = (), down: Sequence[SimulatedWorker] = (), within: float = 30.0
) -> None:
    """Workers come or go, all at once. Balanced soon, one move a shard, and then nothing moves any more.

    A hand-over cannot be seen while it drains, so one that another worker plans meanwhile may lead to the same worker,
    which passes a shard on: that is one move more, once."""
    before = len(world.checkers.moves)
    for worker in up:
        worker.start()
    for worker in down:
        worker.terminate()
    await world.until(lambda: not any(worker.running for worker in down), within, "the end of those that leave")
    await world.until(lambda: all(worker.incarnation for worker in up) and world.balanced(), within, "balance")
    settled = len(world.checkers.moves)
    moved = Counter(shard for _, shard, _, owner in world.checkers.moves[before:] if owner is not None)
    twice = [shard_id for shard_id, times in moved.items() if times > 1]
    if len(twice) > 1 or max(moved.values(), default=0) > 2:
        world.history.violated("fair share", f"{twice[0]} moved {moved[twice[0]]} times for one change of the fleet")
    await asyncio.sleep(60.0)
    if len(world.checkers.moves) > settled:
        world.history.violated("fair share", f"{world.checkers.moves[settled]} moved although nothing changed")


FAMILIES: dict[str, Callable[..., Run]] = {
    "protocol": protocol,
    "records": records,
    "weather": weather,
    "fleet": fleet,
    "failing_keys": failing_keys,
    "kinesis": kinesis,
    "breaker": breaker,
    "parking": parking,
    "parked_child": parked_child,
    "blocked": blocked,
    "older_view": older_view,
    "lost_parent": lost_parent,
}


def run(family: str, seed: int | str, on_event: OnEvent = None) -> History:
    """One run of a family; ``violations`` of the history is empty when every promise was kept."""
    world, scenario = FAMILIES[family](seed, on_event)
    return world.run(scenario)


def _fleet(world: Simulation, handler: Callable[[], Handler], workers: int, rng: random.Random) -> None:
    for number in range(workers):
        world.add_worker(f"w{number}", handler()).rate = 1.0 + rng.uniform(-MOST_DRIFT, MOST_DRIFT)


def _verbs(world: Simulation, verbs: Mapping[str, int]) -> dict[str, int]:
    """An application that starts at LATEST may start anew when its table is wiped: what it skips is no finding."""
    if world.settings.source.starting_position == "latest":
        return {verb: weight for verb, weight in verbs.items() if verb != "wipe_table"}
    return dict(verbs)


async def _chaos(
    world: Simulation,
    user_code: UserCode,
    *,
    seconds: float,
    pause: float,
    verbs: dict[str, int],
    records: tuple[float, float],
) -> None:
    """Records all the time, faults for ``seconds``; then everything must come right."""
    rng = world.rng("start")
    for worker in world.workers.values():
        world.loop.after(rng.uniform(0.0, 3.0), worker.start)
    await asyncio.sleep(3.0)
    writing = asyncio.create_task(_write(world, records))
    await RecordNemesis(world, verbs, pause).run(seconds)
    writing.cancel()
    following = (len(world.streams) - 1) * 2 * FOLLOW_INTERVAL
    slow = 2 * user_code.longest  # where it is busy in the only process of the handler, other shards wait
    await world.until(world.everything_settled, SETTLED_WITHIN + following + slow, "everything settled")
    await world.until(world.closed_shards_done, SETTLED_WITHIN, "all closed shards done")
    await world.until(world.balanced, BALANCED_WITHIN + OUTWAITED + following, "balance")
    await _nothing_is_shared(world, user_code)
    await world.finish()


async def _nothing_is_shared(world: Simulation, user_code: UserCode) -> None:
    """The fleet is well again, and one key fails: the others do not notice. Then it is mended, and comes in order."""
    user_code.calm, user_code.failing_keys = True, {"k0"}
    writing = asyncio.create_task(_write_everywhere(world))
    await asyncio.sleep(IDLE_AT_MOST)  # no shard is polled slowly any more
    world.checkers.expect_prompt(PROMPT, user_code.failing_keys)
    await asyncio.sleep(20.0)
    world.checkers.check_prompt()
    world.checkers.expect_prompt(math.inf, ())
    writing.cancel()
    user_code.failing_keys = set()
    await world.until(world.everything_settled, SETTLED_WITHIN, "everything settled after a key has failed")


async def _write_everywhere(world: Simulation) -> None:
    """So many keys a second that few shards are idle, and so few that also pages of three records are enough."""
    while True:
        for number in range(12):
            world.put(f"k{number}")
            await asyncio.sleep(1.0 / 12)


async def _write(world: Simulation, pauses: tuple[float, float]) -> None:
    """Bursts of changes over few keys, some of them hot."""
    rng = world.rng("records")
    keys = [f"k{number}" for number in range(rng.randint(2, 12))]
    while True:
        await asyncio.sleep(rng.uniform(*pauses))
        for _ in range(rng.choice((1, 1, 2, 10))):
            world.put(rng.choice(keys[:2] if rng.random() < 0.3 else keys))
