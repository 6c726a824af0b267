"""Pages of Kinesis as tests write and read them."""

from __future__ import annotations

from typing import Any

import botocore.session
from aiobotocore.parsers import AioJSONParser
from hypothesis import strategies as st

from consumer.aws.kinesis_pages import KinesisPage, KinesisShard, convert_page, decode_page
from consumer.domain.events import batch_event_json, records_from_event
from tests.support.kinesis_answers import ARN, FIRST, SHARD_ID, body_of, change, data_of, wire

MODEL = botocore.session.get_session().get_service_model("kinesis").operation_model("GetRecords")
SHARD = KinesisShard(ARN, SHARD_ID)


def shown(*datas: bytes, shard: KinesisShard = SHARD) -> list[Any]:
    """The records of a page with these data."""
    body = body_of(*[wire(data, FIRST + place) for place, data in enumerate(datas)])
    return list(decode_page(body, shard).page.records)


def one(data: bytes | dict[str, Any]) -> Any:
    [record] = shown(data if isinstance(data, bytes) else data_of(data))
    return record


async def through_botocore(body: bytes) -> KinesisPage:
    answer = {"headers": {"content-length": str(len(body))}, "status_code": 200, "body": body, "context": {}}
    return convert_page(await AioJSONParser().parse(answer, MODEL.output_shape), SHARD)


def everything(found: KinesisPage) -> list[Any]:
    page = found.page
    records = [(type(record), record.as_event(), record.number, record.created) for record in page.records]
    sizes = [page.wire_bytes, page.held_bytes, page.event_bytes, page.count]
    return [page.next_iterator, page.behind, found.children, found.foreign, sizes, records]


def among_others(odd: bytes) -> Any:
    """The record of this data, between two good changes that must not suffer."""
    good = data_of(change())
    before, record, after = shown(good, odd, good)
    for place, neighbour in ((0, before), (2, after)):
        assert (neighbour.sequence_number, neighbour.new_image) == (str(FIRST + place), {"id": "a", "n": 2})
    assert record.sequence_number == str(FIRST + 1)
    assert len(records_from_event(batch_event_json([before, record, after]))) == 3
    return record


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
