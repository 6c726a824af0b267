"""Every answer that comes back to a client of the SDK, before anything is made of it: is it one, and what time is it
there? ``AwsSession`` sets this up for all its clients; calls that leave out the SDK's machinery ask for it by the same
event (``consumer.aws.direct_get_records``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiobotocore.parsers import AioResponseParserFactory
from botocore.parsers import ResponseParserError

from consumer.aws.answers import Flaw, HttpAnswer
from consumer.aws.errors import StrangeAnswer

BEFORE_PARSE: Final = "before-parse"
_UNPARSED: Final = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError)
_DECODED_LATER: Final = "GetRecords"  # up to 1 MB, decoded once by whoever reads it


class Inspection:
    """A handler of the SDK's event ``before-parse``.

    Args:
        heard: is given the time (Unix seconds) of each answer that says it.
    """

    def __init__(self, heard: Callable[[float], None]) -> None:
        self._heard = heard

    def watch(self, client: Any) -> None:
        """Look at every answer that ``client`` gets from now on."""
        client.meta.events.register(BEFORE_PARSE, self._inspect)

    def _inspect(self, operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
        """Raises StrangeAnswer, which the call then ends with."""
        body = response_dict["body"]
        if not isinstance(body, bytes | bytearray):  # a stream, which nothing here asks for
            return
        operation = operation_model.name
        answer = HttpAnswer(response_dict["status_code"], response_dict["headers"], body)
        bare = operation_model.http.get("method") == "HEAD"
        json_body = "json" in operation_model.service_model.resolved_protocol
        flaw = answer.flaw(json_body=json_body, bare=bare, decoded_later=operation == _DECODED_LATER)
        if flaw is not None:
            raise StrangeAnswer(operation, flaw)
        time = http_time(response_dict["headers"].get("date", ""))
        if time is not None:
            self._heard(time)


class Parsers(AioResponseParserFactory):  # type: ignore[misc]  # the SDK has no types
    """The SDK's parsers, which raise anything on a body of another shape than they expect: StrangeAnswer here."""

    def create_parser(self, protocol_name: str) -> Any:
        parser = super().create_parser(protocol_name)
        parse = parser.parse

        async def parsed(response: Mapping[str, Any], shape: Any) -> Any:
            try:
                return await parse(response, shape)
            except _UNPARSED as error:  # named only: its text may quote the body
                flaw = Flaw("Malformed", f"cannot be parsed: {type(error).__name__}")
                raise StrangeAnswer(response["context"]["operation_name"], flaw) from error

        parser.parse = parsed
        return parser


def http_time(date: str) -> float | None:
    """Unix seconds of an HTTP date, whose resolution is one second; None when there is none that can be read."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
