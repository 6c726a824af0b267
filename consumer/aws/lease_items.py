"""How leases, sessions, registrations and losses look as DynamoDB items. Pure: no client, no clock.

========================  ==========================  ===========================================================
``pk``                    ``sk``                      holds
========================  ==========================  ===========================================================
``app``                   ``meta``                    which source table the application reads, schema version
``app#sessions``          ``<incarnation>``           one worker incarnation
``app#<stream label>``    ``meta``                    the registration: where the application started
``app#<stream label>``    ``shard#<shard id>``        one lease with its frontier
``app#<stream label>``    ``gap#...``                 records that were trimmed before they were read
``app#<stream label>``    ``discarded#...``           records that were given up without a destination
``app#<stream label>``    ``kept#...``                where records are that their destination can never take
``app#<stream label>``    ``replay#...``              who has set which shards back to where, and when
``app#<label>#letters``   ``<idempotencyKey>#<no>``   their payload, in parts of 300 KiB
``app#<label>#bulletin``  ``bulletin``                how many posts there are; whose turn it is to list
``app#<label>#posts``     ``0000`` to ``3999``        which leases a worker has changed: a ring of the last posts
``app#parked``            ``<digest>...``             which keys are parked (``parked_items.py``)
========================  ==========================  ===========================================================

Sequence numbers are strings of up to 40 digits (Kinesis: 129), more than a DynamoDB number holds, and are stored as
the service wrote them. Reading never guesses: a frontier that is not one makes the row ``corrupt``, because any default
would either skip records or repeat a day of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast, get_args

from consumer.aws.item_values import (
    NotAFrontier,
    lenient_number,
    lenient_text,
    read_count,
    read_number,
    read_sequence_number,
    read_text,
    read_texts,
    sequence_number,
)
from consumer.aws.table_rows import AttributeMap, Clause, Item, key
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.deferred import DeferredKey
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import MOST_FAILING, LeaseRow, LeaseState, SessionRow
from consumer.domain.replay_start import ReplayStart
from consumer.ports.leases import Loss, ReplayTrace

# 2: a frontier has deferred keys. A program that does not know them would read on behind their records, so programs of
# another version than the rows refuse to start. 3: the name of an incarnation ends with its duration, the application's
# row names its table by ARN, and every row has its version, so that one is refused whenever it was written.
SCHEMA_VERSION: Final = 3
VERSION: Final = "v"  # of lease and session rows, which are many
READABLE: Final[Clause] = (VERSION, "absent or <", {"N": str(SCHEMA_VERSION + 1)})
META: Final = "meta"
SESSIONS: Final = "sessions"
SHARD: Final = "shard#"
LETTERS: Final = "letters"
MAX_VERSION: Final = 40  # characters of a session's
MAX_NOTE: Final = 1000  # characters; a note is for operators, and the row must stay small
MOST_SHARDS: Final = 1000  # named in the trace of a replay

_STATES: Final = frozenset(get_args(LeaseState))
_LATEST: Final = 1e11  # Unix seconds: the year 5138
_DEFERRED: Final = re.compile(r"([A-Za-z0-9_-]+)([=>])([0-9]+)@([0-9]+)")


# --- keys ------------------------------------------------------------------------------------------


def partition(application: str, label: str) -> str:
    """The partition of a stream's rows, or of the sessions when ``label`` is SESSIONS (labels are ISO times)."""
    return f"{application}#{label}"


# --- single values ---------------------------------------------------------------------------------


def text(value: str) -> dict[str, Any]:
    return {"S": value}


def number(value: float) -> dict[str, Any]:
    """A count, or a time in Unix seconds to the microsecond."""
    return {"N": str(value) if isinstance(value, int) else f"{value:.6f}"}


def texts(values: tuple[str, ...]) -> dict[str, Any]:
    return {"L": [text(value) for value in values]}


# --- leases ----------------------------------------------------------------------------------------


def lease_item(pk: str, row: LeaseRow) -> AttributeMap:
    """A new lease row, complete."""
    item = key(pk, SHARD + row.shard_id)
    item[VERSION] = number(SCHEMA_VERSION)
    item["epoch"] = number(row.epoch)
    item["revision"] = number(row.revision)
    item["parents"] = texts(row.parents)
    if row.owner is not None:
        item["owner"] = text(row.owner)
    if row.starting_sequence_number is not None:
        item["starting_sequence_number"] = text(row.starting_sequence_number)
    return item | {name: value for name, value in progress(row).items() if value is not None}


def progress(row: LeaseRow) -> dict[str, dict[str, Any] | None]:
    """What the owner may change while it keeps the lease. None removes the attribute.

    The frontier of a corrupt row is left out: it is evidence, and a repair sets ``corrupt`` to "".
    """
    changes: dict[str, dict[str, Any] | None] = {"state": text(row.state), "note": text(row.note[:MAX_NOTE])}
    if not row.corrupt:
        low, first, runs = row.frontier.low, row.frontier.first, encode_runs(row.frontier.runs)
        changes["low"] = text(low) if low is not None else None
        changes["first"] = text(first) if first is not None else None
        changes["runs"] = texts(runs) if runs else None
        deferred = encode_deferred(row.frontier.deferred)
        changes["deferred"] = texts(deferred) if deferred else None
        complete_at = row.frontier.complete_at
        changes["complete_at"] = number(complete_at) if complete_at else None
        changes["kept_for"] = number(row.frontier.kept_for) if complete_at else None
        changes["window_open"] = {"BOOL": True} if row.window_open else None
        replay = row.replay
        changes["replay_from"] = number(float(replay.since)) if replay else None
        changes["replay_settled"] = text(replay.settled) if replay else None
        changes["replay_older_settled"] = {"BOOL": True} if replay and replay.older_settled else None
    return changes


def encode_runs(runs: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """``first-last`` each. The frontier has bounded them already."""
    return tuple(f"{first}-{last}" for first, last in runs)


def encode_deferred(keys: tuple[DeferredKey, ...]) -> tuple[str, ...]:
    """``digest=number@since``: from that number on nothing of the key is settled; ``digest>number@since``: after it. A
    time that no record can have, but an odd one has, is stored as unknown."""
    return tuple(
        f"{key.digest}{'>' if key.passed else '='}{key.number}@{key.since if 0 < key.since < _LATEST else 0:.0f}"
        for key in keys
    )


def lease_row(item: Item) -> LeaseRow:
    """The lease in an item; never raises. ``corrupt`` lists everything that does not parse."""
    problems: list[str] = []

    def read(default: Any, reader: Any, *arguments: Any) -> Any:
        try:
            return reader(item, *arguments)
        except NotAFrontier as problem:
            problems.append(str(problem))
            return default

    if version := newer_version(item):
        problems.append(version)
    state = read(None, read_text, "state")
    if state not in _STATES:
        problems.append(f"state is unknown: {state!r}"[:80])
        state = "waiting"
    return LeaseRow(
        shard_id=str(item["sk"]["S"]).removeprefix(SHARD),
        parents=read((), read_texts, "parents"),
        owner=read(None, read_text, "owner"),
        epoch=read(0, read_count, "epoch"),
        state=cast("LeaseState", state),
        frontier=read(FrontierSnapshot(), _read_frontier),
        starting_sequence_number=read(None, read_sequence_number, "starting_sequence_number"),
        window_open="window_open" in item,
        note=lenient_text(item, "note"),
        replay=read(None, _read_replay),
        corrupt="; ".join(problems),
        updated_at=lenient_number(item, "updated_at"),
        revision=int(lenient_number(item, "revision")),
    )


def versions(found: int) -> str:
    """The words about a row of another schema version."""
    return f"schema version {found}, this program knows {SCHEMA_VERSION}"


def newer_version(item: Item) -> str:
    """Why a lease or session row cannot be understood here; empty when it can."""
    version = lenient_number(item, VERSION)
    return f"{versions(int(version))}: upgrade it" if version > SCHEMA_VERSION else ""


def passed_on_by(row: LeaseRow) -> dict[str, Any]:
    """Names the write that gave the lease away last: no owner does that twice with one epoch."""
    return text(f"{row.epoch} {row.owner}")


def _read_frontier(item: Item) -> FrontierSnapshot:
    low, first = read_sequence_number(item, "low"), read_sequence_number(item, "first")
    runs = tuple(_run(entry) for entry in read_texts(item, "runs"))
    deferred = tuple(_deferred(entry) for entry in read_texts(item, "deferred"))
    complete_at = read_number(item, "complete_at") if "complete_at" in item else 0.0
    kept_for = read_number(item, "kept_for") if "kept_for" in item else 0.0
    return FrontierSnapshot(low, first, runs, deferred, complete_at, kept_for)


def _read_replay(item: Item) -> ReplayStart | None:
    if "replay_from" not in item:
        return None
    settled = read_sequence_number(item, "replay_settled")
    if settled is None:
        raise NotAFrontier("replay_settled is missing")
    return ReplayStart(read_number(item, "replay_from"), settled, "replay_older_settled" in item)


def _deferred(entry: str) -> DeferredKey:
    found = _DEFERRED.fullmatch(entry)
    if found is None:
        raise NotAFrontier(f"deferred holds something that is not a key and a number: {entry[:80]!r}")
    digest, sign, number, since = found.groups()
    return DeferredKey(digest, sequence_number(number, "deferred"), sign == ">", float(since))


def _run(entry: str) -> tuple[str, str]:
    first, dash, last = entry.partition("-")
    if not dash:
        raise NotAFrontier(f"runs holds something that is not a run: {entry[:80]!r}")
    sequence_number(first, "runs")
    sequence_number(last, "runs")
    if int(first) > int(last):
        raise NotAFrontier(f"runs holds a run that ends before it starts: {entry[:80]!r}")
    return first, last


# --- sessions --------------------------------------------------------------------------------------


def session_item(pk: str, session: SessionRow) -> AttributeMap:
    item = key(pk, session.incarnation)
    item[VERSION] = number(SCHEMA_VERSION)
    item["counter"] = number(session.counter)
    item["handoffs"] = number(session.handoffs)
    item["leaving"] = {"BOOL": session.leaving}
    item["capacity"] = number(session.capacity)
    item["started_at"] = number(session.started_at)
    item["stream_arn"] = text(session.stream_id)
    if session.version:
        item["version"] = text(session.version)
    if session.fenced:
        item["fenced"] = {"BOOL": True}
    return item


def session_row(item: Item) -> SessionRow | None:
    """The session in an item; None when its counter is not a number.

    Only the counter decides, because such a row can never be renewed either (the condition compares numbers); its
    owner is then watched through its leases. Dropping a row that still can be renewed would look like a death.
    ``fenced`` counts when present, whatever it holds, because the condition on renewing asks for nothing else.
    """
    try:
        counter = int(read_number(item, "counter"))
    except NotAFrontier:
        return None
    leaving = item.get("leaving")
    return SessionRow(
        incarnation=str(item["sk"]["S"]),
        counter=counter,
        fenced="fenced" in item,
        handoffs=int(lenient_number(item, "handoffs")),
        leaving=isinstance(leaving, Mapping) and leaving.get("BOOL") is True,
        capacity=int(lenient_number(item, "capacity")),
        started_at=lenient_number(item, "started_at"),
        stream_id=lenient_text(item, "stream_arn"),
        readable=not newer_version(item),
        version=lenient_text(item, "version")[:MAX_VERSION],
        failing=tuple(lenient_text(item, "failing").split()[:MOST_FAILING]),
    )


# --- losses and letters -----------------------------------------------------------------------------


def loss_item(pk: str, loss: Loss) -> AttributeMap:
    item = key(pk, f"{loss.kind}#{loss.shard_id}#{loss.first_sequence_number or f'{loss.detected_at:.6f}'}")
    item["shard_id"] = text(loss.shard_id)
    item["reason"] = text(loss.reason[:MAX_NOTE])
    item["detected_at"] = number(float(loss.detected_at))
    if loss.first_sequence_number is not None:
        item["first"] = text(loss.first_sequence_number)
    if loss.last_sequence_number is not None:
        item["last"] = text(loss.last_sequence_number)
    if loss.location is not None:
        item["location"] = text(loss.location)
    return item


def replay_item(pk: str, trace: ReplayTrace) -> AttributeMap:
    item = key(pk, f"replay#{trace.at:.6f}#{trace.by}")
    item["by"] = text(trace.by)
    item["at"] = number(float(trace.at))
    item["position"] = text(trace.position)
    item["shards"] = texts(trace.shards[:MOST_SHARDS])
    item["count"] = number(len(trace.shards))
    return item


def part_item(pk: str, part: PayloadPart) -> AttributeMap:
    item = key(pk, f"{part.key}#{part.number:04}")
    return item | {"payload": {"B": part.payload}, "part": number(part.number), "parts": number(part.count)}
