"""GetRecords without the SDK's machinery around it: its own signer and its own HTTP session, nothing in between.

Most of a small call's CPU goes into endpoint rules, serializer, user agent, retry handlers and parsers, whose outcome
is the same for every call: 2.7 ms of CPU through ``client.get_records()``, 0.4 ms here. Near the tip of a stream, where
pages are small, that is nearly all a worker uses.

Nothing is guessed. ``learn`` lets the SDK prepare and sign one request, keeps it from the network, and takes its URL
and its headers; ``call`` sends the same request with another body. Signature and credentials come from the client's
signer, connections, proxies, certificates and exceptions from the client's HTTP session. Every answer is shown to the
client's handlers of ``before-parse`` (``consumer.aws.inspection``), and errors go through botocore's parser. When the
SDK works in another way than is known here, ``learn`` says so and ``consumer.aws.page_reader`` leaves everything to
``client.get_records()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from botocore.awsrequest import AWSRequest, HeadersDict

from consumer.aws.inspection import BEFORE_PARSE, Parsers

OPERATION: Final = "GetRecords"
# What differs from call to call, or is about the SDK's retries, which are switched off.
_PER_CALL: Final = {
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "x-amz-date",
    "x-amz-security-token",
}

BEFORE_SEND: Final = "before-send"

_encode = msgspec.json.Encoder().encode


class DirectCallUnavailable(Exception):
    """The SDK works in a way that is not known here; the text says how."""


def event_name(client: Any, event: str) -> str:
    """The name under which ``client`` emits ``event`` for GetRecords, such as ``before-send.kinesis.GetRecords``."""
    return f"{event}.{client.meta.service_model.service_id.hyphenize()}.{OPERATION}"


class DirectGetRecords:
    """``GetRecords`` of one client without its per-call machinery. ``learn`` first.

    Args:
        client: a ``dynamodbstreams`` or ``kinesis`` client. Its event handlers are not called on this path, but for
            those of ``before-parse``.
        fields: what every request has besides iterator and limit. The SDK may choose the host by them: that of a stream
            of Kinesis has the account of its StreamARN in it (endpoint rules of botocore, ``OperationType`` "data").
    """

    def __init__(self, client: Any, fields: Mapping[str, str]) -> None:
        self._client = client
        self._fields = dict(fields)
        self._before_parse = event_name(client, BEFORE_PARSE)
        self._http: Any = None
        self._signer: Any = None
        self._scope: dict[str, str] = {}
        self._url = ""
        self._headers: dict[str, str] = {}
        model = client.meta.service_model
        self._model = model.operation_model(OPERATION)
        self._parser = Parsers().create_parser(model.protocol)

    async def learn(self, iterator: str) -> Mapping[str, Any]:
        """Take over how the SDK asks. A handler of ``before-send`` must answer the request for ``iterator``; returns
        what the SDK's parser makes of that answer.

        Raises:
            DirectCallUnavailable: the SDK asks in a way that is not known here.
            BotoCoreError: there are no credentials.
        """
        answer, signing, request = await self._prepared_request(iterator)
        if signing.get("signature_version") != "v4" or request is None or request.method != "POST":
            raise DirectCallUnavailable(f"requests are not plain signature v4: {signing.get('signature_version')}")
        if not _says(request.body, {"ShardIterator": iterator, **self._fields}):
            raise DirectCallUnavailable("the SDK asks for other things than it was told to")
        try:
            # botocore gives a client's HTTP session no public name, and another one would need its proxies, timeouts
            # and certificates again. A release that moves it is noticed here, and pages come at the SDK's price.
            self._http = self._client._endpoint.http_session  # noqa: SLF001 - it has no public name
        except AttributeError as error:
            raise DirectCallUnavailable(f"the client keeps its HTTP session elsewhere: {error}") from error
        self._signer = signing["request_signer"]
        self._scope = {name: signing[name] for name in ("signing_name", "region_name", "signature_version")}
        self._url = request.url
        self._headers = {
            name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in request.headers.items()
            if name.lower() not in _PER_CALL
        }
        return answer

    async def call(self, iterator: str, limit: int) -> bytes:
        """The body of a successful answer.

        Raises:
            StrangeAnswer, ClientError, BotoCoreError: as ``client.get_records()`` raises them.
        """
        body = _encode({"ShardIterator": iterator, "Limit": limit, **self._fields})
        request = AWSRequest("POST", self._url, dict(self._headers), body)
        # The signer of now: credentials that are rotated are in it, and are refreshed by it when they are due.
        auth = await self._signer.get_auth_instance(**self._scope)
        auth.add_auth(request)
        response = await self._http.send(request.prepare())
        content: bytes = await response.content
        answer = {
            "status_code": response.status_code,
            "headers": response.headers,
            "body": content,
            "context": {"operation_name": OPERATION},
        }
        await self._client.meta.events.emit(
            self._before_parse, operation_model=self._model, response_dict=answer, customized_response_dict={}
        )
        if response.status_code >= 300:
            await self._raise(answer)
        return content

    async def _prepared_request(self, iterator: str) -> tuple[Mapping[str, Any], dict[str, Any], Any]:
        """The SDK's answer, what it signed with, and the request that it would have sent."""
        signing: dict[str, Any] = {}
        prepared: list[Any] = []

        def on_sign(**given: Any) -> None:
            signing.update(given)

        def on_send(request: Any, **_: Any) -> None:
            prepared.append(request)

        events = self._client.meta.events
        before_sign, before_send = (event_name(self._client, event) for event in ("before-sign", BEFORE_SEND))
        events.register(before_sign, on_sign)
        events.register_first(before_send, on_send)
        try:
            answer = await self._client.get_records(ShardIterator=iterator, **self._fields)
        finally:
            events.unregister(before_sign, on_sign)
            events.unregister(before_send, on_send)
        return answer, signing, prepared[-1] if prepared else None

    async def _raise(self, answer: Mapping[str, Any]) -> None:
        named = {**answer, "headers": HeadersDict(answer["headers"])}
        parsed = await self._parser.parse(named, self._model.output_shape)
        error = self._client.exceptions.from_code(parsed.get("Error", {}).get("Code"))
        raise error(parsed, OPERATION)


def _says(body: bytes | str, wanted: Mapping[str, str]) -> bool:
    try:
        return bool(msgspec.json.decode(body) == wanted)
    except (msgspec.MsgspecError, TypeError):
        return False
