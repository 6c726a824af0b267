"""Single letters through the handler again: order within a key, each record once, and what may be deleted."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from consumer.domain.errors import PermissionDenied
from consumer.domain.filters.filters import compile_filters
from consumer.domain.letter_selection import Selection
from consumer.domain.outcome import HandlerCall, HandlerFault, Outcome
from consumer.domain.record import Record
from consumer.domain.redaction import Redaction
from consumer.domain.settlement import RetryPolicy
from consumer.domain.source_format import dynamodb_format
from consumer.ports.letter_store import StoredLetter
from consumer.redrive.attempts import Attempts, Calls, Pace
from consumer.redrive.gathering import Gathering, Spool, whole_keys
from consumer.redrive.held_letters import HeldLetters
from consumer.redrive.key_run import Rules
from consumer.redrive.letter_deletion import LetterDeletion
from consumer.redrive.reading_again import ReadingAgain
from consumer.redrive.redrive import Redrive, Summary
from consumer.testing.simulated_worker import Scripted
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

FORMAT = dynamodb_format("id")


def stored(
    name: str, *records: tuple[str, int], at: int = 0, lacks: Sequence[str] = (), event: str = "MODIFY"
) -> StoredLetter:
    """A letter of records ``(key, sequence number)``, redacted when it ``lacks`` something."""
    payload = {
        "Records": [
            {
                "eventID": str(number),
                "eventName": event,
                "dynamodb": {
                    "Keys": {"id": {"S": key}},
                    **(
                        {}
                        if event == "REMOVE"
                        else {"NewImage": {"id": {"S": key}, "v": {"S": "[redacted]"} if lacks else {"N": str(number)}}}
                    ),
                    "SequenceNumber": str(number),
                },
            }
            for key, number in records
        ]
    }
    document = {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "timestamp": f"2026-09-17T13:29:{at:02}.000Z",
        "DDBStreamBatchInfo": {"shardId": "shard", "batchSize": len(records), "streamArn": "t/stream/label"},
        "application": "app",
        "idempotencyKey": name,
        **({"redacted": True, "redactedAttributes": list(lacks)} if lacks else {}),
        "payload": payload,
    }
    return StoredLetter(name, name, json.dumps(document, separators=(",", ":")).encode(), {})


class Place:
    """``ports.LetterStore`` in memory."""

    place = "memory"
    hidden_for = math.inf

    def __init__(self, letters: Sequence[StoredLetter]) -> None:
        self.there = {one.name: one for one in letters}

    async def prepare(self) -> None:
        await asyncio.sleep(0)

    async def letters(self, *, parked: bool = True) -> AsyncIterator[StoredLetter]:
        for one in list(self.there.values()):
            yield one

    async def keep(self, letters: Sequence[StoredLetter]) -> list[StoredLetter]:
        return []

    async def put_back(self, letters: Sequence[StoredLetter]) -> None:
        await asyncio.sleep(0)

    async def delete(self, letter: StoredLetter) -> None:
        await asyncio.sleep(0)
        del self.there[letter.name]

    async def waiting(self) -> None:
        return None


class NoPayloads:
    async def fetch(self, location: str) -> bytes:
        raise ValueError(f"nothing is at {location}")

    async def delete(self, location: str) -> None:
        raise ValueError(f"nothing is at {location}")


class Items:
    table = "t"

    def __init__(self, **versions: int) -> None:
        self.versions = versions

    async def item(self, keys: dict[str, dict[str, str]]) -> dict[str, dict[str, str]] | None:
        await asyncio.sleep(0)
        key = keys["id"]["S"]
        return {"id": {"S": key}, "v": {"N": str(self.versions[key])}} if key in self.versions else None


class Session:
    """As ``RedriveSession``, as far as it is asked."""

    def __init__(self) -> None:
        self.sure = True
        self.lost = asyncio.Event()

    def holds(self) -> bool:
        return self.sure

    def left(self) -> float:
        return math.inf


class Run:
    """One redrive over some letters: ``failing`` are the numbers that the handler cannot handle."""

    def __init__(
        self,
        *letters: StoredLetter,
        failing: Sequence[str] = (),
        items: Items | None = None,
        again: ReadingAgain | None = None,
        filters: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.place = Place(letters)
        self.again = again or ReadingAgain(items)
        self.filters = compile_filters(filters)
        self.images: dict[str, tuple[str, object]] = {}  # event names and versions by number
        self.calls: list[list[str]] = []
        self.failing = set(failing)
        self.items = items
        self.session = Session()
        self.stop_after = math.inf
        self.says = "poison"
        self.redaction: Redaction | None = None

    def summary(self, *, batch_size: int = 100, dry: bool = False, limit: int | None = None) -> Summary:
        found: list[Summary] = []

        async def body(clock: Process) -> None:
            stop = asyncio.Event()

            async def behave(call: HandlerCall) -> Outcome:
                await asyncio.sleep(0.01)
                numbers = [record.number for record in call.records]
                if self.failing & set(numbers):
                    return Outcome("failed", fault=HandlerFault("raised", "ValueError", self.says))
                self.calls.append(numbers)
                for record in call.records:
                    assert isinstance(record, Record)
                    self.images[record.number] = (record.event_name, (record.new_image or {}).get("v"))
                if len(self.calls) >= self.stop_after:
                    stop.set()
                return Outcome("ok")

            policy = RetryPolicy(max_retries=1, initial_backoff=0.1, max_backoff=0.1)
            calls = Calls(Scripted(behave), self.session, "app", 60.0, batch_size, policy, lambda _: 1, self.redaction)  # type: ignore[arg-type]  # a session as far as it is asked
            held = HeldLetters(self.place)
            with Spool() as spool:
                gathering = Gathering(self.place, NoPayloads(), held, spool, "app", FORMAT.key_of)
                letters = whole_keys((await gathering.gather(Selection())).letters, limit)
                deletion = None if dry else LetterDeletion(held, NoPayloads(), self.session)  # type: ignore[arg-type]  # the same
                work = Redrive(gathering, deletion, FORMAT.key_of, lambda _: None)
                attempts = None if dry else Attempts(calls, Pace(clock, math.inf), stop)
                found.append(await work.run(letters, Rules(self.filters, self.items, self.again), attempts, stop, 1))

        in_virtual_time(body)
        return found[0]

    @property
    def handled(self) -> list[str]:
        return [number for numbers in self.calls for number in numbers]


def test_the_oldest_record_of_a_key_comes_first_whatever_the_order_of_its_letters() -> None:
    run = Run(stored("third", ("a", 100)), stored("first", ("a", 9)), stored("second", ("a", 20)))
    summary = run.summary()
    assert run.handled == ["9", "20", "100"]
    assert (summary.count("handled"), summary.records_handled, run.place.there) == (3, 3, {})


def test_a_record_that_lies_in_two_letters_is_handled_once_and_both_go() -> None:
    run = Run(stored("one", ("a", 1), ("a", 2)), stored("two", ("a", 2), ("a", 3)), stored("copy", ("a", 2)))
    assert run.summary().count("handled") == 3
    assert run.handled == ["1", "2", "3"]
    assert run.place.there == {}


def test_what_comes_after_a_record_that_fails_is_left_and_other_keys_go_on() -> None:
    run = Run(stored("1", ("a", 1)), stored("2", ("a", 2)), stored("3", ("a", 3)), stored("4", ("b", 4)), failing=["2"])
    summary = run.summary()
    assert run.handled == ["1", "4"]
    assert set(run.place.there) == {"2", "3"}
    reasons = {one.found.name: one.reason for one in summary.results if one.result == "left"}
    assert "failed again, 2 times: ValueError: poison" in reasons["2"]
    assert "waits behind" in reasons["3"]


def test_what_is_said_of_a_letter_from_before_the_redaction_hides_its_values() -> None:
    """The letter still holds them."""
    run = Run(stored("1", ("a", 123456)), failing=["123456"])
    run.says, run.redaction = "no such version: 123456", Redaction(["v"])
    (result,) = run.summary().results
    assert "no such version: [redacted]" in result.reason
    assert "123456" not in result.reason


def test_a_letter_is_deleted_only_when_all_of_it_was_handled() -> None:
    run = Run(stored("both", ("a", 1), ("b", 2)), failing=["2"])
    assert run.summary().count("left") == 1
    assert run.handled == ["1"]
    assert set(run.place.there) == {"both"}


def test_an_item_decides_for_all_of_its_records() -> None:
    letters = [stored("1", ("a", 1)), stored("2", ("a", 2)), stored("3", ("b", 3)), stored("4", ("c", 4))]
    run = Run(*letters, items=Items(a=2, b=7))
    summary = run.summary()
    assert run.handled == ["1", "2"]
    reasons = {one.found.name: one.reason for one in summary.results if one.result == "left"}
    assert reasons == {"3": "is older than its item", "4": "is older than its item, which was deleted since"}


def test_nothing_is_deleted_or_called_by_one_that_is_not_sure_of_its_session() -> None:
    run = Run(stored("1", ("a", 1)))
    run.session.sure = False
    (result,) = run.summary().results
    assert (run.handled, set(run.place.there)) == ([], {"1"})
    assert "not sure of its session" in result.reason


def test_a_dry_run_calls_and_deletes_nothing() -> None:
    run = Run(stored("1", ("a", 1)), stored("2", ("b", 2)))
    assert run.summary(dry=True).count("handled") == 2
    assert (run.handled, set(run.place.there)) == ([], {"1", "2"})


def test_a_stop_while_letters_are_gathered_takes_no_more_of_them_and_keeps_none() -> None:
    """There may be very many, and a process that is stopped has seconds."""
    stop = asyncio.Event()
    put_back: list[str] = []

    class Stopped(Place):
        async def letters(self, *, parked: bool = True) -> AsyncIterator[StoredLetter]:
            async for one in super().letters(parked=parked):
                yield one
                stop.set()

        async def put_back(self, letters: Sequence[StoredLetter]) -> None:
            put_back.extend(one.name for one in letters)

    async def body(_: Process) -> None:
        place = Stopped([stored(name, ("a", number)) for number, name in enumerate("abcd", 1)])
        held = HeldLetters(place)
        with Spool() as spool:
            async with held.kept():
                gathering = Gathering(place, NoPayloads(), held, spool, "app", FORMAT.key_of)
                gathered = await gathering.gather(Selection(), stop=stop)
                assert [one.name for one in gathered.letters] == ["a"]

    in_virtual_time(body)
    assert put_back == ["a", "b"]


def test_a_stop_leaves_what_was_not_begun() -> None:
    run = Run(stored("1", ("a", 1)), stored("2", ("a", 2)), stored("3", ("b", 3)))
    run.stop_after = 1
    summary = run.summary(batch_size=1)
    assert (run.handled, set(run.place.there), summary.stopped) == (["1"], {"2", "3"}, True)


@pytest.mark.parametrize(("limit", "expected"), [(1, ["1", "3"]), (2, ["1", "3"]), (3, ["1", "2", "3"])])
def test_a_limit_takes_whole_keys(limit: int, expected: list[str]) -> None:
    run = Run(stored("3", ("a", 3), at=3), stored("2", ("b", 2), at=2), stored("1", ("a", 1), at=1))
    run.summary(limit=limit)
    assert sorted(run.handled) == expected


SECRET = ["v"]


def reasons(summary: Summary) -> dict[str, str]:
    return {one.found.name: one.reason for one in summary.results if one.result == "left"}


def test_a_redacted_letter_is_handled_with_its_item_as_it_is_now() -> None:
    run = Run(stored("1", ("a", 1), lacks=SECRET, event="INSERT"), stored("2", ("b", 2)), items=Items(a=7, b=2))
    assert run.summary().count("handled") == 2
    assert run.images == {"1": ("INSERT", 7), "2": ("MODIFY", 2)}
    assert run.place.there == {}


def test_consecutive_redacted_records_of_an_item_are_one_event_and_all_letters_go() -> None:
    letters = [stored("1", ("a", 1), lacks=SECRET), stored("2", ("a", 2), lacks=SECRET), stored("3", ("b", 3))]
    run = Run(*letters, items=Items(a=5, b=3))
    summary = run.summary()
    assert run.images == {"2": ("MODIFY", 5), "3": ("MODIFY", 3)}
    assert (summary.count("handled"), run.place.there) == (3, {})


def test_an_item_that_is_gone_or_came_back_is_left_unless_it_is_forced() -> None:
    letters = [stored("1", ("a", 1), lacks=SECRET), stored("2", ("b", 2), lacks=SECRET, event="REMOVE")]
    run = Run(*letters, items=Items(b=9))
    found = reasons(run.summary())
    assert (run.handled, set(run.place.there)) == ([], {"1", "2"})
    assert "deleted since" in found["1"]
    assert "written again since" in found["2"]
    forced = Run(*letters, again=ReadingAgain(Items(b=9)))
    assert forced.summary().count("handled") == 2
    assert forced.images == {"1": ("REMOVE", None), "2": ("REMOVE", None)}


def test_a_redacted_letter_is_left_where_no_item_can_be_read() -> None:
    class Denied(Items):
        async def item(self, keys: dict[str, dict[str, str]]) -> dict[str, dict[str, str]] | None:
            raise PermissionDenied("dynamodb:GetItem", "table t")

    letters = [stored("1", ("a", 1), lacks=SECRET), stored("2", ("b", 2))]
    for again, why in (
        (ReadingAgain(None, "--check none reads no items"), "--check none"),
        (ReadingAgain(Denied()), "GetItem"),
    ):
        run = Run(*letters, again=again)
        found = reasons(run.summary())
        assert (run.handled, set(run.place.there)) == (["2"], {"1"})
        assert why in found["1"], "and what is whole goes on"


def test_what_follows_a_redacted_record_that_fails_again_is_not_tried() -> None:
    run = Run(
        stored("1", ("a", 1), lacks=SECRET),
        stored("2", ("a", 2), lacks=SECRET),
        stored("3", ("a", 3)),
        failing=["2"],
        items=Items(a=3),
    )
    found = reasons(run.summary())
    assert (run.handled, set(run.place.there)) == ([], {"1", "2", "3"})
    assert "failed again" in found["1"]
    assert "waits behind" in found["3"]


def test_filters_look_at_the_item_and_not_at_what_is_left_of_it() -> None:
    pattern = {"dynamodb": {"NewImage": {"v": {"N": ["7"]}}}}
    letters = [stored("1", ("a", 1), lacks=SECRET), stored("2", ("b", 2), lacks=SECRET)]
    run = Run(*letters, items=Items(a=7, b=8), filters=[pattern])
    found = reasons(run.summary())
    assert run.handled == ["1"]
    assert "filters" in found["2"]


def test_of_a_record_that_lies_there_whole_and_redacted_the_whole_one_counts() -> None:
    letters = [stored("whole", ("a", 1)), stored("lacks", ("a", 1), lacks=SECRET)]
    for one, other in (letters, reversed(letters)):
        run = Run(one, other)
        assert run.summary().count("handled") == 2
        assert run.images == {"1": ("MODIFY", 1)}


def test_a_dry_run_says_of_a_redacted_letter_what_would_become_of_it() -> None:
    run = Run(stored("1", ("a", 1), lacks=SECRET), stored("2", ("b", 2), lacks=SECRET), items=Items(a=7))
    summary = run.summary(dry=True)
    assert (summary.count("handled"), run.handled) == (1, [])
    assert "deleted since" in reasons(summary)["2"]
