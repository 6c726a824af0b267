"""How the ``meta`` rows look: what an application reads, and where it started on a stream. Pure: no client, no clock.

``lease_items.py`` has the map of all rows.
"""

from __future__ import annotations

from consumer.aws.item_values import (
    NotAFrontier,
    lenient_number,
    lenient_text,
    read_count,
    read_number,
    read_text,
    read_texts,
    shown,
)
from consumer.aws.lease_items import META, SCHEMA_VERSION, number, text, texts, versions
from consumer.aws.table_rows import AttributeMap, Item, key
from consumer.domain.errors import MisconfiguredResource
from consumer.ports.leases import Pinned, Registration


def registration_item(pk: str, registration: Registration) -> AttributeMap:
    item = key(pk, META)
    item["stream_arn"] = text(registration.stream_id)
    item["skip_shards"] = texts(tuple(sorted(registration.skip_shards)))
    item["schema_version"] = number(SCHEMA_VERSION)
    if registration.start_at is not None:
        item["start_at"] = number(float(registration.start_at))
    return item


def registration(item: Item) -> Registration:
    """The registration in an item. MisconfiguredResource when it does not parse: a start position is never guessed."""
    try:
        if problem := version_problem(item):
            raise NotAFrontier(problem)
        return Registration(
            stream_id=read_text(item, "stream_arn") or "",
            start_at=read_number(item, "start_at") if "start_at" in item else None,
            skip_shards=frozenset(read_texts(item, "skip_shards")),
        )
    except NotAFrontier as problem:
        where = f"pk={item['pk']['S']}, sk={item['sk']['S']}"
        raise MisconfiguredResource(f"the registration row {where} cannot be used: {problem}") from problem


def application_item(application: str, table_arn: str, lease_table_id: str) -> AttributeMap:
    item = key(application, META)
    item["table_arn"] = text(table_arn)
    item["lease_table_id"] = text(lease_table_id)
    item["schema_version"] = number(SCHEMA_VERSION)
    return item


def version_problem(item: Item) -> str:
    """Why the row of an application or of a registration cannot be used by this program; empty when it can."""
    version = read_count(item, "schema_version")
    if version > SCHEMA_VERSION:
        return f"its rows have {versions(version)}: upgrade it"
    if version < SCHEMA_VERSION:
        found = f"its rows have schema version {version}, older than this program's {SCHEMA_VERSION}"
        return f"{found}: finish with the version that wrote them, or choose another application name"
    return ""


def application_problem(item: Item, table_arn: str | None = None) -> str:
    """Why the application's row does not fit; empty when it does. Without ``table_arn`` any source table does."""
    try:
        if problem := version_problem(item):
            return problem
        found = read_text(item, "table_arn")
    except NotAFrontier as problem:
        return f"its meta row cannot be read: {problem}"
    if table_arn not in (None, found):
        return f"it reads {found}, not {table_arn}: choose another application name"
    return ""


def lease_table_id(item: Item) -> str:
    """In which lease table the application's rows were written, or have been taken over; empty when it is not known."""
    return lenient_text(item, "lease_table_id")


def least_epoch(item: Item) -> int:
    """Epochs below this one were handed out before the lease table was restored."""
    return int(lenient_number(item, "least_epoch"))


def pinned(item: Item) -> Pinned:
    """What an application's row that fits says."""
    return Pinned(lenient_text(item, "table_arn"), lenient_text(item, "stream_arn") or None)


def current_stream(item: Item) -> str:
    """The stream that the application's row points to. MisconfiguredResource when it names none."""
    found = lenient_text(item, "stream_arn")
    if "stream/" not in found:
        raise MisconfiguredResource(f"the row pk={item['pk']['S']}, sk={META} names no stream: {shown(found)}")
    return found
