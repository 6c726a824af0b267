"""Changes of a table as DynamoDB puts them on a Kinesis stream, faults of that path included.

    log = generate(seed=1, changes=1000, items=50, doubled=0.1, swapped=0.05)
    await put_changes(client, "stream", log.puts)
    ...  # whoever reads the stream must end with log.final()

DynamoDB promises neither the order of the changes nor that each comes once: what it puts again is the same data under
another sequence number, and of two changes of an item the newer may be put first. Only the creation time says which is
newer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

Item = Mapping[str, Mapping[str, Any]]  # typed attributes: {"id": {"S": "a"}}
Precision = Literal["MILLISECOND", "MICROSECOND"]

MAX_SWAP: Final = 2_000_000  # us between the creation of two changes that are put in the wrong order
MAX_LATE: Final = 20  # puts between a change and its double
BATCH_RECORDS: Final = 500  # of one PutRecords
BATCH_BYTES: Final = 4 << 20  # below the 5 MiB of older limits; in base64 it fits into the 7 MiB of kinesalite
TRIES: Final = 8


@dataclass(frozen=True)
class TableChange:
    """One change of an item.

    ``created_us`` is its creation time in us since 1970; ``precision`` is the setting of the table at that time.
    """

    keys: Item
    new_image: Item | None
    old_image: Item | None
    created_us: int
    event_id: str
    precision: Precision = "MICROSECOND"
    table: str = "orders"
    region: str = "us-east-1"
    user_identity: Mapping[str, str] | None = None  # of deletes by TTL

    @property
    def event_name(self) -> str:
        if self.old_image is None:
            return "INSERT"
        return "REMOVE" if self.new_image is None else "MODIFY"

    @property
    def partition_key(self) -> str:
        """32 hexadecimal digits that depend on the item's key alone. DynamoDB's own function is not known."""
        keys = json.dumps(self.keys, sort_keys=True, ensure_ascii=False)
        return hashlib.md5(keys.encode(), usedforsecurity=False).hexdigest().upper()

    def envelope(self) -> dict[str, Any]:
        """The document that DynamoDB puts: unlike a record of DynamoDB Streams it has the table's name, a whole number
        as its time and no SequenceNumber, StreamViewType, eventVersion and eventSourceARN."""
        micros = self.precision == "MICROSECOND"
        images = {"NewImage": self.new_image, "OldImage": self.old_image}
        return {
            "awsRegion": self.region,
            "eventID": self.event_id,
            "eventName": self.event_name,
            "userIdentity": self.user_identity,
            "recordFormat": "application/json",
            "tableName": self.table,
            "dynamodb": {
                "ApproximateCreationDateTime": self.created_us if micros else self.created_us // 1000,
                "Keys": self.keys,
                **{name: image for name, image in images.items() if image is not None},
                "SizeBytes": sum(item_size(part) for part in (self.keys, self.new_image or {}, self.old_image or {})),
                **({"ApproximateCreationDateTimePrecision": "MICROSECOND"} if micros else {}),
            },
            "eventSource": "aws:dynamodb",
        }

    def data(self) -> bytes:
        return json.dumps(self.envelope(), separators=(",", ":"), ensure_ascii=False).encode()


def item_size(item: Item) -> int:
    """Bytes of an item as DynamoDB counts them."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    [(kind, content)] = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "B":  # base64
            return len(content) * 3 // 4 - content.count("=")
        case "N":
            return (len(content.lstrip("-").replace(".", "")) + 1) // 2 + 1 + content.startswith("-")
        case "BOOL" | "NULL":
            return 1
        case "SS" | "NS" | "BS":
            return sum(_value_size({kind[0]: each}) for each in content)
        case "L":
            return 3 + sum(1 + _value_size(each) for each in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(each) for name, each in content.items())
    raise ValueError(f"{kind!r} is no type of an attribute")


@dataclass(frozen=True)
class ChangeLog:
    """``changes`` as they were made, ``puts`` as they come: some twice, some before an older one of their item."""

    changes: tuple[TableChange, ...]
    puts: tuple[TableChange, ...]

    def final(self) -> dict[str, Item]:
        """The items of the table in the end, by ``id``."""
        last = {change.keys["id"]["S"]: change.new_image for change in self.changes}
        return {name: image for name, image in last.items() if image is not None}


def generate(
    seed: int,
    *,
    changes: int,
    items: int,
    doubled: float = 0.0,
    swapped: float = 0.0,
    precision: Precision | Literal["both"] = "MICROSECOND",
    table: str = "orders",
    start_us: int = 1_760_000_000_000_000,
) -> ChangeLog:
    """Changes of items with the key ``id`` and a version ``v`` that counts up, also when an item was removed. Two of
    one item are made 1 ms apart at least, so that their times differ.

    Args:
        doubled: share of the changes that are put a second time, up to ``MAX_LATE`` puts later.
        swapped: share of the changes that change places with the one before or after it of their item, made at most
            ``MAX_SWAP`` earlier or later.
        precision: "both" for a table whose setting is changed again and again.

    Raises:
        ValueError: so many changes cannot be swapped.
    """
    rng = random.Random(seed)
    made = tuple(_changes(rng, changes, items, precision, table, start_us))
    order = list(range(changes))
    for first, second in _pairs(rng, made, round(swapped * changes / 2)):
        order[first], order[second] = order[second], order[first]
    places = [(float(place), number) for place, number in enumerate(order)]
    again = rng.sample(range(changes), round(doubled * changes))
    places += [(place + rng.uniform(0.5, MAX_LATE), order[place]) for place in again]
    return ChangeLog(made, tuple(made[number] for _, number in sorted(places)))


def _changes(
    rng: random.Random, count: int, items: int, precision: Precision | Literal["both"], table: str, now: int
) -> Iterator[TableChange]:
    images: dict[str, Item | None] = {}
    versions: dict[str, int] = {}
    changed: dict[str, int] = {}
    for _ in range(count):
        name = f"item-{rng.randrange(items)}"
        now = max(now + rng.randint(1, max(2, 1_000_000 // items)), changed.get(name, 0) + 1000)
        old = images.get(name)
        versions[name] = versions.get(name, 0) + 1
        note = "x" * rng.randrange(20)
        removed = old is not None and rng.random() < 0.1
        new = None if removed else {"id": {"S": name}, "v": {"N": str(versions[name])}, "note": {"S": note}}
        setting: Precision = rng.choice(("MILLISECOND", "MICROSECOND")) if precision == "both" else precision
        event_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        yield TableChange({"id": {"S": name}}, new, old, now, event_id, setting, table)
        images[name], changed[name] = new, now


def _pairs(rng: random.Random, made: Sequence[TableChange], count: int) -> list[tuple[int, int]]:
    """So many pairs of neighbours among the changes of an item; no change is in two of them."""
    of_item: dict[str, list[int]] = {}
    for number, change in enumerate(made):
        of_item.setdefault(change.partition_key, []).append(number)
    near = [pair for numbers in of_item.values() for pair in pairwise(numbers)]
    near = [(one, two) for one, two in near if made[two].created_us - made[one].created_us <= MAX_SWAP]
    rng.shuffle(near)
    used: set[int] = set()
    found: list[tuple[int, int]] = []
    for one, two in near:
        if len(found) < count and not {one, two} & used:
            used |= {one, two}
            found.append((one, two))
    if len(found) < count:
        raise ValueError(
            f"only {len(found)} pairs of changes of an item can be swapped, not {count}: make more changes"
        )
    return found


class PutRefused(Exception):
    """The stream did not take a record after all tries."""


async def put_changes(
    client: Any,
    stream: str,
    changes: Iterable[TableChange],
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[str]:
    """Put them in this order, with PutRecords; returns their sequence numbers.

    What is refused is put again behind the rest of its batch, as DynamoDB does it.

    Raises:
        PutRefused: a record was refused ``TRIES`` times.
    """
    numbers: list[str] = []
    for batch in _batches(changes):
        found: dict[int, str] = {}
        for attempt in range(TRIES):
            left = [place for place in range(len(batch)) if place not in found]
            answer = await client.put_records(StreamName=stream, Records=[batch[place] for place in left])
            refused = [each for each in answer["Records"] if "ErrorCode" in each]
            given = zip(left, answer["Records"], strict=True)
            found |= {place: each["SequenceNumber"] for place, each in given if "ErrorCode" not in each}
            if not refused:
                break
            await sleep(0.05 * 2**attempt)
        else:
            said = f"{refused[0]['ErrorCode']}: {refused[0].get('ErrorMessage', '')}"
            raise PutRefused(f"{stream} refused {len(refused)} of {len(batch)} records {TRIES} times ({said})")
        numbers += [found[place] for place in range(len(batch))]
    return numbers


def _batches(changes: Iterable[TableChange]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for change in changes:
        entry = {"Data": change.data(), "PartitionKey": change.partition_key}
        more = len(entry["Data"]) + len(entry["PartitionKey"])
        if batch and (len(batch) == BATCH_RECORDS or size + more > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += more
    if batch:
        yield batch
