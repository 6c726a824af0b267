"""Records that fail for good: dead letters that are refused, discards, ages, and what the other keys notice of it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
from typing import Any

import pytest

from consumer.domain.errors import DependencyError, PayloadTooLarge, Throttled, UnsuitableCharacters
from consumer.domain.outcome import OK, HandlerCall, Outcome
from consumer.testing.network import Weather
from consumer.testing.simulated_worker import SimulatedWorker
from consumer.testing.simulation import Simulation
from tests.support.simulated_shards import (
    ALONE,
    Fault,
    Recorder,
    Refusal,
    append_too_old,
    checkpoint,
    checkpointed,
    fails,
    keys,
    letters,
    log_events,
    losses,
    metric,
    named,
    others_settled,
    poison,
    run,
    settled_keys,
    shard_world,
    start,
    until,
    write,
)

NO_DESTINATION = {"on_failure": {"destination": None}}
DESTINATIONS = [
    pytest.param(True, id="destination"),
    pytest.param(
        False,
        id="no destination",
    ),
]


def refused(worker: SimulatedWorker) -> list[Fault]:
    """Neither the destination nor the lease table takes what failed."""
    sending = Refusal(worker.links["dead_letters"], DependencyError("SendMessage", "ServiceUnavailable"), "send")
    return [sending, Refusal(worker.links["table"], DependencyError("TransactWriteItems", "Timeout"), "record_loss")]


def traces(world: Simulation) -> list[Any]:
    """What is durable of the records that failed for good: dead letters, or discards when there is no destination."""
    return letters(world) if world.settings.on_failure.destination else losses(world)


def heal(faults: list[Fault]) -> None:
    for fault in faults:
        fault.end()


# --- a destination that refuses --------------------------------------------------------------------------


def test_only_the_keys_of_a_refused_dead_letter_wait() -> None:
    """Nothing passes it: not the frontier, not a later record of its key; all other keys go on."""
    world = shard_world("only its keys", ALONE)
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        worker = start(world, "a", Recorder(poison))
        faults = refused(worker)
        first = world.put("poison")
        write(world, 100)
        second = world.put("poison")
        await until(world, lambda: others_settled(world), "all other keys are handled")
        await until(world, lambda: bool(world.rows()[shard].frontier.runs), "a checkpoint of later records")
        assert checkpoint(world, shard) < int(first)
        assert letters(world) == []
        heal(faults)
        await until(world, lambda: len(letters(world)) == 2, "both letters are sent")
        numbers = [letter["DDBStreamBatchInfo"]["startSequenceNumber"] for letter in letters(world)]
        assert numbers == [first, second]
        await until(world, lambda: checkpoint(world, shard) >= int(second), "the checkpoint passes both")
        assert metric(worker, "dead_letters") == 2

    run(world, scenario)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("destination", DESTINATIONS)
def test_refused_dead_letters_take_no_place(*, destination: bool, factor: int) -> None:
    """More of them than batches may run at once, and yet all other keys go on, also those of their batches; and never
    more batches at once than configured."""
    config = {"batch": {"batch_size": 4, "parallelization_factor": factor}} | ({} if destination else NO_DESTINATION)
    world = shard_world("no place", config, stream={"page_records": 4}, on_event=lambda _: None)
    running, most = 0, 0

    async def behave(call: HandlerCall) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.5)
        running -= 1
        return await poison(call)

    async def scenario() -> None:
        faults = refused(start(world, "a", Recorder(behave)))
        for index in range(8):
            world.put(f"poison{index}")
            world.put(f"beside{index}")
        write(world, 40)
        with log_events() as events:
            await until(world, lambda: others_settled(world), "all other keys are handled")
            await until(
                world,
                lambda: len({e["first_sequence_number"] for e in named(events, "dead_letter.refused")}) == 8,
                "a dead letter of each poison key is refused",
            )
        assert traces(world) == []
        heal(faults)
        await until(world, lambda: len(traces(world)) == 8, "all eight are durable")

    run(world, scenario)
    assert most == factor


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_a_refused_dead_letter_does_not_hold_up_a_hand_over(*, destination: bool) -> None:
    """The shard moves to the newcomer, which goes on trying; without a limit of time nothing else would move."""
    world = shard_world("hand-over", dict(ALONE) | ({} if destination else NO_DESTINATION), shards=2)

    async def scenario() -> None:
        for index in range(8):
            world.put(f"poison{index}")
        write(world, 40)
        faults = refused(start(world, "a", Recorder(poison)))
        await until(world, lambda: others_settled(world), "all other keys are handled")
        second = start(world, "b", Recorder(poison))
        faults += refused(second)
        await until(world, lambda: sorted(world.owned().values()) == [1, 1], "each worker has a shard")
        write(world, 40)
        await until(world, lambda: others_settled(world), "all other keys are handled again")
        assert traces(world) == []
        heal(faults)
        await until(world, lambda: len(traces(world)) == 8, "all eight are durable")
        assert world.owned()[second.incarnation] == 1

    run(world, scenario)


def test_a_shard_ends_only_after_its_retries() -> None:
    """The reader is through long before the poison is: children start, but what they hold of its key comes later."""
    world = shard_world("end after retries")
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        faults = refused(start(world, "a", Recorder(poison)))
        world.put("poison")
        world.stream.roll(shard)
        late = world.put("poison")
        world.put("child")
        await until(world, lambda: settled_keys(world) == ["child"], "the other key of the child is handled")
        await world.sleep(60.0)
        row = world.rows()[shard]
        assert (row.state, len(row.frontier.deferred)) == ("deferred", 1)
        assert letters(world) == []
        heal(faults)
        await until(world, lambda: len(letters(world)) == 2, "the letters of both shards are sent")
        assert letters(world)[1]["DDBStreamBatchInfo"]["startSequenceNumber"] == late
        await until(world, lambda: world.rows()[shard].finished, "the parent is done")

    run(world, scenario)


def test_a_refused_dead_letter_never_stops_the_reading_on_a_small_budget() -> None:
    """Nor do the records that wait behind it: none of them keeps its page in memory."""
    config = dict(ALONE) | {"limits": {"buffer": "1MiB"}}
    world = shard_world("small budget", config, stream={"page_records": 22})

    async def scenario() -> None:
        faults = refused(start(world, "a", Recorder(poison)))
        world.put("poison")
        await until(world, lambda: faults[0].taken > 0, "its dead letter is refused")
        for page in range(10):
            world.put("poison")
            world.put(f"poison{page}")
            for index in range(20):
                world.put(f"k{index}", text="x" * 8000)
            await until(world, lambda: others_settled(world), "what comes after it is handled", 10.0)
        assert letters(world) == []
        heal(faults)

    run(world, scenario)


def test_poison_does_not_hold_up_other_keys() -> None:
    """With retries left and long back-off, only the poison's own key waits; a twin key is never handled twice."""
    patient = {"retry": {"max_retry_attempts": -1, "backoff": {"initial": "10m", "max": "10m"}}}
    world = shard_world("poison", patient | dict(ALONE), stream={"page_records": 50})
    mended = False

    async def poisoned(call: HandlerCall) -> Outcome:
        return OK if mended else await poison(call)

    async def scenario() -> None:
        nonlocal mended
        handler = Recorder(poisoned)
        first = world.put("poison")
        write(world, 300)
        world.put("poison")
        start(world, "a", handler)
        await until(world, lambda: others_settled(world), "all other keys are handled")
        tried = [call.records[0].sequence_number for call in handler.calls if "poison" in keys(call)]
        assert tried == [first], "one attempt, and nothing of its key behind it"
        mended = True
        await until(world, world.everything_settled, "the poison's retry and what waits behind it", 900.0)

    run(world, scenario)


# --- letters that never fit ------------------------------------------------------------------------------


def blob(size: int) -> bytes:
    """What no compression makes smaller; in JSON a third larger."""
    return random.Random(size).randbytes(size)


def test_a_letter_that_never_fits_holds_up_neither_other_keys_nor_the_child() -> None:
    """Default settings and what SQS takes. Its records are complete in the lease table, and the letter says where."""
    world = shard_world("never fits")
    (shard,) = world.stream.open_shards()

    async def scenario() -> None:
        worker = start(world, "a", Recorder(poison))
        write(world, 20)
        world.put("poison", blob=blob(399_000))
        number = world.put("poison", blob=blob(398_000))  # with the old image more than 1 MiB
        write(world, 40)
        child = world.stream.roll(shard)
        write(world, 20)
        await until(world, lambda: others_settled(world), "all other keys are handled, those of the child as well")
        assert child in world.rows()
        await until(world, lambda: len(letters(world)) == 2, "both letters are sent")
        first, pointer = letters(world)
        assert len(first["payload"]["Records"]) == 1
        assert pointer["DDBStreamBatchInfo"]["startSequenceNumber"] == number
        assert "payload" not in pointer
        location = f"dynamodb://stream-consumer/simulated/{world.stream.label}/{pointer['idempotencyKey']}"
        assert pointer["payloadLocation"] == location
        (record,) = json.loads(world.table.payload(location))["Records"]
        assert record["dynamodb"]["SequenceNumber"] == number
        assert base64.b64decode(record["dynamodb"]["NewImage"]["blob"]["B"]) == blob(398_000)
        (loss,) = losses(world)
        assert (loss.kind, loss.first_sequence_number, loss.location) == ("kept", number, location)
        assert "does not fit" in loss.reason
        assert metric(worker, "dead_letters") == 2

    run(world, scenario)


def test_what_is_kept_survives_throttles_and_lost_answers() -> None:
    """Parts, trace, letter: each is repeated until it is durable, and stored once."""
    world = shard_world("kept after all", stream={"page_records": 1})

    async def scenario() -> None:
        worker = start(world, "a", Recorder(poison))
        table = worker.links["table"]
        Refusal(table, Throttled("TransactWriteItems", "ThrottlingError"), "store_part", but=1, times=4)
        table.lose_response("store_part", "record_loss", times=5)
        worker.links["dead_letters"].lose_response("send", times=1)
        world.dead_letters.maximum_size = 256 * 1024
        world.put("poison", blob=blob(399_000))
        await until(
            world, lambda: len(losses(world)) == 1 and len(letters(world)) == 2, "trace and letter, one repeated"
        )
        assert len({letter["payloadLocation"] for letter in letters(world)}) == 1
        assert world.table.payload(letters(world)[0]["payloadLocation"]).startswith(b'{"Records":[{')

    run(world, scenario)


def test_records_that_do_not_fit_into_one_letter_get_several() -> None:
    """Each is complete by itself and says which part of the batch it is."""
    world = shard_world("several", {"retry": {"bisect_on_error": False}})
    world.dead_letters.maximum_size = 256 * 1024

    async def scenario() -> None:
        numbers = [world.put("poison", blob=blob(40_000 + index)) for index in range(4)]
        start(world, "a", Recorder(poison))
        await until(world, lambda: len(letters(world)) == 2, "two letters")
        found = [
            [one["dynamodb"]["SequenceNumber"] for one in letter["payload"]["Records"]] for letter in letters(world)
        ]
        assert found == [numbers[:2], numbers[2:]]
        parts = [letter["part"] for letter in letters(world)]
        (whole,) = {part.pop("of") for part in parts}
        assert parts == [{"first": 1, "last": 2, "records": 4}, {"first": 3, "last": 4, "records": 4}]
        assert len({whole, *(letter["idempotencyKey"] for letter in letters(world))}) == 3
        assert losses(world) == []

    run(world, scenario)


@pytest.mark.parametrize("refusal", [None, UnsuitableCharacters("not that one")], ids=["too large", "characters"])
def test_a_compressed_letter_goes_where_the_plain_one_is_refused(refusal: UnsuitableCharacters | None) -> None:
    world = shard_world("compressed")

    async def scenario() -> None:
        worker = start(world, "a", Recorder(poison))
        if refusal is not None:
            Refusal(worker.links["dead_letters"], refusal, "send", times=1)
        number = world.put("poison", text="x" * (100 if refusal else 390_000))
        world.dead_letters.maximum_size = 256 * 1024
        await until(world, lambda: len(letters(world)) == 1, "the letter")
        (letter,) = letters(world)
        assert letter["payloadEncoding"] == "gzip+base64"
        event = json.loads(gzip.decompress(base64.b64decode(letter["payload"])))
        assert event["Records"][0]["dynamodb"]["SequenceNumber"] == number

    run(world, scenario)


@pytest.mark.parametrize("location", ["", "s3://kept/payload.json"], ids=["no overflow", "overflow"])
def test_a_destination_that_takes_no_letter_at_all_ends_with_the_trace(location: str) -> None:
    world = shard_world("no letter")

    async def scenario() -> None:
        worker = start(world, "a", Recorder(poison))
        refusal = PayloadTooLarge("queue", 2000, 1024)
        refusal.payload_location = location
        Refusal(worker.links["dead_letters"], refusal, "send")
        world.put("poison")
        world.put("other")
        await until(world, lambda: len(losses(world)) == 1, "the trace")
        (loss,) = losses(world)
        assert loss.location is not None
        if location:
            assert loss.location == location
        else:
            assert world.table.payload(loss.location).startswith(b'{"Records":[{')
        await until(world, world.everything_settled, "the key goes on")
        # Counted when the answer to the write is there.
        await until(world, lambda: metric(worker, "dead_letters") == 1, "the letter is counted")
        assert letters(world) == []

    run(world, scenario)


# --- without a call, without a destination ---------------------------------------------------------------


def test_a_record_that_grows_too_old_during_the_back_off_is_not_sent_again() -> None:
    """Lambda never sends a record above its maximum age; the back-off must not be a way round that."""
    retry = {"max_retry_attempts": -1, "max_record_age": "1m", "backoff": {"initial": "90s", "max": "90s"}}
    world = shard_world("too old", {"retry": retry})

    async def scenario() -> None:
        handler = Recorder(fails)
        world.put("slow")
        start(world, "a", handler)
        await until(world, lambda: len(letters(world)) == 1, "the dead letter", 120.0)
        assert len(handler.calls) == 1
        assert letters(world)[0]["requestContext"]["condition"] == "RecordAgeExceeded"

    run(world, scenario)


def test_without_a_destination_a_discard_leaves_a_loss() -> None:
    world = shard_world("discard", NO_DESTINATION)

    async def scenario() -> None:
        write(world, 20)
        number = world.put("poison")
        write(world, 20)
        start(world, "a", Recorder(poison))
        await until(world, lambda: others_settled(world) and len(losses(world)) == 1, "a discard, and all else handled")
        (loss,) = losses(world)
        assert (loss.kind, loss.first_sequence_number, loss.last_sequence_number) == ("discarded", number, number)
        assert letters(world) == []

    run(world, scenario)


def test_a_fenced_worker_sends_no_dead_letter() -> None:
    """Records that are too old need no handler call, but their dead letters belong to the next owner all the same."""
    config = {"retry": {"max_record_age": "1m"}, "source": {"poll": {"idle_backoff_max": "1s"}}}
    world = shard_world("fenced", config)

    async def scenario() -> None:
        first = start(world, "first")
        await checkpointed(world, write(world, 5)[-1])
        fenced = first.incarnation
        first.links["session"].weather = first.links["table"].weather = Weather(lose_request=1.0)
        second = start(world, "second")
        reading = Refusal(second.links["stream"], DependencyError("GetRecords", "InternalServerError"), "get_records")
        await until(world, lambda: world.owned().get(second.incarnation) == 1, "the second worker takes the shard")
        append_too_old(world, "old", 100.0)
        await until(world, lambda: metric(first, "in_flight_records") == 1, "the first worker reads the old record")
        await world.sleep(60.0)  # the longest back-off is over
        assert letters(world) == []
        first.links["session"].weather = Weather()  # it is answered that its session is fenced
        await world.sleep(10.0)
        first.links["table"].weather = Weather()
        await until(world, lambda: first.incarnation not in ("", fenced), "the first worker opens another session")
        assert letters(world) == []
        reading.end()
        await until(world, lambda: len(letters(world)) == 1, "the owner sends it")
        assert losses(world) == []

    run(world, scenario)
