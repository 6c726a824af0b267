"""What a table says of the Kinesis stream that it feeds. Only looked at: reading needs none of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from consumer.aws.errors import ApiCaller

CALL_TIMEOUT: Final = 10.0  # seconds
_FLOWS: Final = ("ACTIVE", "UPDATING")  # while its precision is changed changes go on to come
_NO_CHANGES: Final = {
    "ENABLING": "no changes come yet",
    "DISABLING": "soon no changes will come",
    "DISABLED": "no changes come",
    "ENABLE_FAILED": "no changes come: it could not be enabled",
}


class StreamingDestination:
    """Of one table (its name or ARN), by DescribeKinesisStreamingDestination."""

    def __init__(self, dynamodb_client: Any, caller: ApiCaller, table: str) -> None:
        self._dynamodb = dynamodb_client
        self._caller = caller
        self.table = table

    async def obstacle(self, stream_arn: str) -> str:
        """Why no changes of the table come into this stream; empty when they do. StreamConsumerError."""
        call = self._dynamodb.describe_kinesis_streaming_destination(TableName=self.table)
        operation = "DescribeKinesisStreamingDestination"
        answer = await self._caller.call(operation, f"table {self.table}", call, CALL_TIMEOUT)
        return _obstacle(self.table, stream_arn, answer.get("KinesisDataStreamDestinations") or ())


def _obstacle(table: str, stream_arn: str, destinations: Iterable[Mapping[str, Any]]) -> str:
    """A table that was disabled and enabled again may have several entries for one stream."""
    found = {str(each.get("StreamArn")): each for each in sorted(destinations, key=_flows)}
    ours = found.get(stream_arn)
    if ours is not None:
        status = str(ours.get("DestinationStatus"))
        reason = f" ({ours['DestinationStatusDescription']})" if ours.get("DestinationStatusDescription") else ""
        effect = _NO_CHANGES.get(status, "it is not known whether changes come")
        return "" if status in _FLOWS else f"its Kinesis destination {stream_arn} is {status}{reason}: {effect}"
    others = [arn for arn, each in found.items() if _flows(each)]
    instead = f"puts its changes into {', '.join(others)}" if others else "puts its changes into no Kinesis stream"
    how = f"aws dynamodb enable-kinesis-streaming-destination --table-name {table} --stream-arn {stream_arn}"
    return f"it {instead}, so none come from {stream_arn} ({how})"


def _flows(destination: Mapping[str, Any]) -> bool:
    return destination.get("DestinationStatus") in _FLOWS
