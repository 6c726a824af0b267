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
``app#<label>#letters``   ``<idempotencyKey>#<no>``   their payload, in parts of 300 KiB
========================  ==========================  ===========================================================

Sequence numbers are strings of up to 40 digits (Kinesis: 129), more than a DynamoDB number holds, and are stored as
the service wrote them. Reading never guesses: a frontier that is not one makes the row ``corrupt``, because any default
would either skip records or repeat a day of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast, get_args

from consumer.aws.table_rows import AttributeMap, Item, key
from consumer.domain.dead_letter import PayloadPart
from consumer.domain.deferred import DeferredKey
from consumer.domain.errors import MisconfiguredResource
from consumer.domain.frontier import FrontierSnapshot
from consumer.domain.lease import LeaseRow, LeaseState, SessionRow
from consumer.ports.leases import Loss, Registration

# 2: a frontier has deferred keys. A program that does not know them would read on behind their records, so programs of
# another version than the rows refuse to start.
SCHEMA_VERSION: Final = 2
META: Final = "meta"
SESSIONS: Final = "sessions"
SHARD: Final = "shard#"
LETTERS: Final = "letters"
MAX_NOTE: Final = 1000  # characters; a note is for operators, and the row must stay small

_STATES: Final = frozenset(get_args(LeaseState))
_LONGEST_NUMBER: Final = 129
_LATEST: Final = 1e11  # Unix seconds: the year 5138
_DEFERRED: Final = re.compile(r"([A-Za-z0-9_-]+)([=>])([0-9]+)@([0-9]+)")


class NotAFrontier(ValueError):
    """A stored attribute has the wrong type or is not what its name says."""


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


def _read_text(item: Item, name: str) -> str | None:
    value = item.get(name)
    if value is None:
        return None
    found = value.get("S")
    if not isinstance(found, str):
        raise NotAFrontier(f"{name} is not a string: {_shown(value)}")
    return found


def _read_number(item: Item, name: str) -> float:
    try:
        found = float(item[name]["N"])
    except (KeyError, TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise NotAFrontier(f"{name} is not a number: {_shown(item.get(name))}")
    return found


def _read_count(item: Item, name: str) -> int:
    _read_number(item, name)
    found = Decimal(item[name]["N"])  # exact: a float would make another epoch of a large one
    if found != int(found) or found < 0:
        raise NotAFrontier(f"{name} is not a count: {_shown(item[name])}")
    return int(found)


def _read_texts(item: Item, name: str) -> tuple[str, ...]:
    value = item.get(name)
    if value is None:
        return ()
    found = value.get("L", value.get("SS"))
    if not isinstance(found, list):
        raise NotAFrontier(f"{name} is not a list: {_shown(value)}")
    return tuple(_element(entry, name) for entry in found)


def _element(entry: Any, name: str) -> str:
    found = entry.get("S") if isinstance(entry, Mapping) else entry
    if not isinstance(found, str):
        raise NotAFrontier(f"{name} holds something that is not a string: {_shown(entry)}")
    return found


def _read_sequence_number(item: Item, name: str) -> str | None:
    found = _read_text(item, name)
    return None if found is None else _sequence_number(found, name)


def _sequence_number(found: str, name: str) -> str:
    if not (found.isascii() and found.isdigit()) or len(found) > _LONGEST_NUMBER:
        raise NotAFrontier(f"{name} is not a sequence number: {found[:80]!r}")
    return found


def _shown(value: object) -> str:
    return repr(value)[:80]


# --- leases ----------------------------------------------------------------------------------------


def lease_item(pk: str, row: LeaseRow) -> AttributeMap:
    """A new lease row, complete."""
    item = key(pk, SHARD + row.shard_id)
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
        changes["window_open"] = {"BOOL": True} if row.window_open else None
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

    state = read(None, _read_text, "state")
    if state not in _STATES:
        problems.append(f"state is unknown: {state!r}"[:80])
        state = "waiting"
    return LeaseRow(
        shard_id=str(item["sk"]["S"]).removeprefix(SHARD),
        parents=read((), _read_texts, "parents"),
        owner=read(None, _read_text, "owner"),
        epoch=read(0, _read_count, "epoch"),
        state=cast("LeaseState", state),
        frontier=read(FrontierSnapshot(), _read_frontier),
        starting_sequence_number=read(None, _read_sequence_number, "starting_sequence_number"),
        window_open="window_open" in item,
        note=_lenient_text(item, "note"),
        corrupt="; ".join(problems),
        updated_at=_lenient_number(item, "updated_at"),
        revision=int(_lenient_number(item, "revision")),
    )


def passed_on_by(row: LeaseRow) -> dict[str, Any]:
    """Names the write that gave the lease away last: no owner does that twice with one epoch."""
    return text(f"{row.epoch} {row.owner}")


def _read_frontier(item: Item) -> FrontierSnapshot:
    low, first = _read_sequence_number(item, "low"), _read_sequence_number(item, "first")
    runs = tuple(_run(entry) for entry in _read_texts(item, "runs"))
    deferred = tuple(_deferred(entry) for entry in _read_texts(item, "deferred"))
    return FrontierSnapshot(low, first, runs, deferred)


def _deferred(entry: str) -> DeferredKey:
    found = _DEFERRED.fullmatch(entry)
    if found is None:
        raise NotAFrontier(f"deferred holds something that is not a key and a number: {entry[:80]!r}")
    digest, sign, number, since = found.groups()
    return DeferredKey(digest, _sequence_number(number, "deferred"), sign == ">", float(since))


def _run(entry: str) -> tuple[str, str]:
    first, dash, last = entry.partition("-")
    if not dash:
        raise NotAFrontier(f"runs holds something that is not a run: {entry[:80]!r}")
    _sequence_number(first, "runs")
    _sequence_number(last, "runs")
    if int(first) > int(last):
        raise NotAFrontier(f"runs holds a run that ends before it starts: {entry[:80]!r}")
    return first, last


def _lenient_text(item: Item, name: str) -> str:
    try:
        return _read_text(item, name) or ""
    except NotAFrontier:
        return ""


def _lenient_number(item: Item, name: str) -> float:
    try:
        return _read_number(item, name) if name in item else 0.0
    except NotAFrontier:
        return 0.0


# --- sessions --------------------------------------------------------------------------------------


def session_item(pk: str, session: SessionRow) -> AttributeMap:
    item = key(pk, session.incarnation)
    item["counter"] = number(session.counter)
    item["handoffs"] = number(session.handoffs)
    item["leaving"] = {"BOOL": session.leaving}
    item["capacity"] = number(session.capacity)
    item["started_at"] = number(session.started_at)
    item["label"] = text(session.label)
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
        counter = int(_read_number(item, "counter"))
    except NotAFrontier:
        return None
    leaving = item.get("leaving")
    return SessionRow(
        incarnation=str(item["sk"]["S"]),
        counter=counter,
        fenced="fenced" in item,
        handoffs=int(_lenient_number(item, "handoffs")),
        leaving=isinstance(leaving, Mapping) and leaving.get("BOOL") is True,
        capacity=int(_lenient_number(item, "capacity")),
        started_at=_lenient_number(item, "started_at"),
        label=_lenient_text(item, "label"),
    )


# --- registration, application and losses ----------------------------------------------------------


def registration_item(pk: str, registration: Registration) -> AttributeMap:
    item = key(pk, META)
    item["stream_arn"] = text(registration.stream_arn)
    item["skip_shards"] = texts(tuple(sorted(registration.skip_shards)))
    item["schema_version"] = number(SCHEMA_VERSION)
    if registration.start_at is not None:
        item["start_at"] = number(float(registration.start_at))
    return item


def registration(item: Item) -> Registration:
    """The registration in an item. MisconfiguredResource when it does not parse: a start position is never guessed."""
    try:
        if _read_count(item, "schema_version") > SCHEMA_VERSION:
            raise NotAFrontier("it was written by a newer version")
        return Registration(
            stream_arn=_read_text(item, "stream_arn") or "",
            start_at=_read_number(item, "start_at") if "start_at" in item else None,
            skip_shards=frozenset(_read_texts(item, "skip_shards")),
        )
    except NotAFrontier as problem:
        where = f"pk={item['pk']['S']}, sk={item['sk']['S']}"
        raise MisconfiguredResource(f"the registration row {where} cannot be used: {problem}") from problem


def application_item(application: str, source_table: str) -> AttributeMap:
    item = key(application, META)
    item["table"] = text(source_table)
    item["schema_version"] = number(SCHEMA_VERSION)
    return item


def application_problem(item: Item, source_table: str) -> str:
    """Why the application's row does not fit; empty when it does."""
    try:
        version, table = _read_count(item, "schema_version"), _read_text(item, "table")
    except NotAFrontier as problem:
        return f"its meta row cannot be read: {problem}"
    if version > SCHEMA_VERSION:
        return f"its rows have schema version {version}, this program knows {SCHEMA_VERSION}: upgrade it"
    if version < SCHEMA_VERSION:
        found = f"its rows have schema version {version}, older than this program's {SCHEMA_VERSION}"
        return f"{found}: finish with the version that wrote them, or choose another application name"
    if table != source_table:
        return f"it reads the table {table}, not {source_table}: choose another application name"
    return ""


def current_stream(item: Item) -> str:
    """The stream that the application's row points to. MisconfiguredResource when that is not an ARN."""
    found = _lenient_text(item, "stream_arn")
    if "/stream/" not in found:
        raise MisconfiguredResource(f"the row pk={item['pk']['S']}, sk={META} names no stream: {_shown(found)}")
    return found


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


def part_item(pk: str, part: PayloadPart) -> AttributeMap:
    item = key(pk, f"{part.key}#{part.number:04}")
    return item | {"payload": {"B": part.payload}, "part": number(part.number), "parts": number(part.count)}
