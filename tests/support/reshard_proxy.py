"""A re-sharding and fault proxy in front of a real local server.

Everything passes through except DescribeStream, GetShardIterator and GetRecords, which show a synthetic tree of virtual
shards over the one real shard. Tests re-shard, trim, hide and expire through methods, or over HTTP
(``POST /_proxy/split`` with ``{"shard_id": ...}``), and queue faults for any operation of any service.

    async with ReshardProxy(local_aws.endpoint, shards=4) as proxy:   # in the test's own loop
    with ProxyThread(local_aws.endpoint, shards=4) as proxy:          # in a thread, for daemons in other processes
        proxy.call("split", shard_id)
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

from tests.support.proxy_faults import Fault, Refusal, UpstreamError, apply, error_response, json_response
from tests.support.virtual_shards import HASHES, Cursor, VirtualShard, VirtualStream, new_shard, number_text

STREAMS = "DynamoDBStreams_20120810."
HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "date", "server"}
MOST_BODY = 64 * 1024 * 1024


class ReshardProxy:
    """The proxy, running on 127.0.0.1 in the loop that entered it. Its methods take effect at once.

    Args:
        upstream: URL of the real server.
        shards: how many open virtual shards a stream has at first.
        describe_page: most shards in a DescribeStream answer (100 on AWS).
    """

    ADMIN = (
        *("split", "roll", "hide_children", "trim", "vanish", "expire_iterators", "empty_pages"),
        *("fault", "clear_faults", "shards", "calls_of"),
    )

    def __init__(self, upstream: str, *, shards: int = 1, describe_page: int = 100) -> None:
        self.upstream = upstream.rstrip("/")
        self.initial_shards = shards
        self.describe_page = describe_page
        self.ignore_shard_filter = False
        self.endpoint = ""
        self.calls: dict[str, int] = {}
        self._streams: dict[str, VirtualStream] = {}
        self._faults: list[Fault] = []
        self._generation = 0
        self._hidden_for = 0.0
        self._closing = asyncio.Lock()
        self._client: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60))
        app = web.Application(client_max_size=MOST_BODY)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    # --- what tests do -------------------------------------------------------------------------------------------

    async def split(self, shard_id: str) -> list[str]:
        """Close a shard at the current tail; returns its two children, each with half of its keys."""
        stream, shard = self._find(shard_id)
        middle = (shard.low + shard.high) // 2
        return await self._close(stream, shard, [(shard.low, middle), (middle, shard.high)])

    async def roll(self, shard_id: str) -> list[str]:
        """Close a shard at the current tail; returns its only child, with the same keys."""
        stream, shard = self._find(shard_id)
        return await self._close(stream, shard, [(shard.low, shard.high)])

    async def hide_children(self, seconds: float) -> None:
        """From now on, children are visible only ``seconds`` after their parent was closed; 0 shows all at once."""
        self._hidden_for = seconds
        for shard in [shard for stream in self._streams.values() for shard in stream.shards.values() if not seconds]:
            shard.visible_at = 0.0

    async def trim(self, shard_id: str, upto: str) -> None:
        """Drop this shard's records up to and including a SequenceNumber."""
        _, shard = self._find(shard_id)
        if not shard.is_trimmed(int(upto)):
            shard.trimmed = upto

    async def vanish(self, shard_id: str) -> None:
        """Remove a shard from listings and answers. Its children keep naming it."""
        self._find(shard_id)[1].gone = True

    async def expire_iterators(self) -> None:
        """Every iterator handed out so far is expired."""
        self._generation += 1

    async def empty_pages(self, shard_id: str, times: int = 1) -> None:
        """The next pages of this shard are empty, without moving on."""
        self._find(shard_id)[1].empty_pages = times

    async def fault(self, operation: str, kind: str = "error", **options: Any) -> None:
        """Queue a fault (see ``proxy_faults.Fault``): ``fault("GetRecords", code="ThrottlingException", status=400)``.

        Kinds: error, lose_request, lose_response (after it was applied), delay (``seconds``), truncate (``keep``,
        ``honest_length``), and reply, which answers as something that is not the service (``status``, ``body``,
        ``content_type``; ``applied``: the service has done what was asked), and rewrite, which changes ``old`` to
        ``new`` in its answer. All take ``times`` and ``skip``.
        """
        self._faults.append(Fault(operation, kind, **options))  # type: ignore[arg-type]  # options of a Fault

    async def clear_faults(self) -> None:
        self._faults.clear()

    async def shards(self, arn: str | None = None) -> list[dict[str, Any]]:
        """All virtual shards, hidden ones included: ``shard_id``, ``parent``, ``open``, ``arn``."""
        return [
            {"shard_id": shard.shard_id, "parent": shard.parent, "open": shard.end is None, "arn": stream.arn}
            for stream in self._streams.values()
            for shard in stream.shards.values()
            if arn in (None, stream.arn) and not shard.gone
        ]

    async def calls_of(self, operation: str) -> int:
        """How many requests of an operation have arrived."""
        return self.calls.get(operation, 0)

    # --- serving -------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.Response:
        if request.path.startswith("/_proxy/"):
            return await self._admin(request)
        target = request.headers.get("X-Amz-Target", "")
        operation = target.rpartition(".")[2] or request.method
        self.calls[operation] = self.calls.get(operation, 0) + 1
        body = await request.read()
        signed = request.headers.get("Authorization", "")
        fault = next((fault for fault in self._faults if fault.takes(operation, signed, body)), None)
        return await apply(fault, request, lambda: self._answer(request, target, body))

    async def _answer(self, request: web.Request, target: str, body: bytes) -> web.Response:
        handlers: dict[str, Callable[[dict[str, str], dict[str, Any]], Any]] = {
            STREAMS + "DescribeStream": self._describe_stream,
            STREAMS + "GetShardIterator": self._get_shard_iterator,
            STREAMS + "GetRecords": self._get_records,
        }
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            if target in handlers:
                return json_response(await handlers[target](headers, json.loads(body)))
            assert self._client is not None
            url = self.upstream + request.path_qs
            async with self._client.request(request.method, url, data=body, headers=headers) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)
        except UpstreamError as error:
            return web.Response(status=error.status, body=error.body, content_type="application/x-amz-json-1.0")
        except Refusal as error:
            return error_response(error.code, 400, str(error))

    async def _admin(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        if name not in self.ADMIN:
            return web.Response(status=404, text=f"no such method: {name}")
        arguments = json.loads(await request.read() or b"{}")
        try:
            return json_response({"result": await getattr(self, name)(**arguments)})
        except (KeyError, TypeError, ValueError) as error:
            return web.Response(status=400, text=json.dumps({"error": repr(error)}), content_type="application/json")

    async def _real(self, headers: dict[str, str], operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Ask the real server, with the headers of the client that asked us (they carry region and account)."""
        assert self._client is not None
        own = {**headers, "X-Amz-Target": STREAMS + operation}
        async with self._client.post(self.upstream + "/", data=json.dumps(parameters), headers=own) as answer:
            body = await answer.read()
            if answer.status >= 300:
                raise UpstreamError(answer.status, body)
            parsed: dict[str, Any] = json.loads(body)
            return parsed

    # --- the three rewritten operations --------------------------------------------------------------------------

    async def _stream(self, headers: dict[str, str], arn: str) -> tuple[VirtualStream, dict[str, Any]]:
        """The virtual stream of an ARN (made at first sight) and its real description."""
        real = (await self._real(headers, "DescribeStream", {"StreamArn": arn}))["StreamDescription"]
        if arn not in self._streams:
            key = next(e["AttributeName"] for e in real["KeySchema"] if e["KeyType"] == "HASH")
            stream = VirtualStream(arn, key, real["Shards"][0]["ShardId"], headers)
            bounds = [HASHES * index // self.initial_shards for index in range(self.initial_shards + 1)]
            for low, high in pairwise(bounds):
                shard = new_shard(None, low, high, None, 0.0)
                stream.shards[shard.shard_id] = shard
            self._streams[arn] = stream
        return self._streams[arn], real

    async def _describe_stream(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        stream, real = await self._stream(headers, parameters["StreamArn"])
        listed = stream.listed(time.monotonic())
        wanted = parameters.get("ShardFilter")
        if wanted and not self.ignore_shard_filter:
            listed = [shard for shard in listed if shard.parent == wanted["ShardId"]]
        start = parameters.get("ExclusiveStartShardId")
        if start:
            listed = [shard for shard in listed if shard.shard_id > start]  # ids grow
        limit = min(self.describe_page, parameters.get("Limit", 100))
        described = [shard.described() for shard in listed[:limit]]
        ended = real["Shards"][0]["SequenceNumberRange"].get("EndingSequenceNumber")
        if ended is not None:  # the real stream is disabled
            for shard in described:
                shard["SequenceNumberRange"].setdefault("EndingSequenceNumber", ended)
        answer = {**real, "Shards": described}
        answer.pop("LastEvaluatedShardId", None)
        if len(listed) > limit:
            answer["LastEvaluatedShardId"] = described[-1]["ShardId"]
        return {"StreamDescription": answer}

    async def _get_shard_iterator(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        arn = parameters["StreamArn"]
        stream = self._streams.get(arn) or (await self._stream(headers, arn))[0]
        shard = self._visible(stream, parameters["ShardId"])
        kind, number = parameters["ShardIteratorType"], parameters.get("SequenceNumber")
        after = int(shard.begin or 0)
        if kind == "LATEST":
            after = -1
        elif number is not None:
            if shard.is_trimmed(int(number)):
                raise Refusal("TrimmedDataAccessException", "")
            position = int(number) - (kind == "AT_SEQUENCE_NUMBER")
            if position > after:
                after = position
            else:  # such as the start of the shard, a number that the server never gave to a record
                kind, number = "TRIM_HORIZON", None
        if kind == "TRIM_HORIZON" and shard.begin is not None:
            kind, number = "AFTER_SEQUENCE_NUMBER", shard.begin
        real = await self._real_iterator(headers, stream, kind, number)
        return {"ShardIterator": Cursor(shard.shard_id, stream.arn, real, self._generation, after).token()}

    async def _get_records(self, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            cursor = Cursor.of(parameters["ShardIterator"])
        except ValueError as error:
            raise Refusal("ValidationException", str(error)) from error
        if cursor.generation != self._generation:
            raise Refusal("ExpiredIteratorException", "")
        stream = self._streams[cursor.arn]
        shard = self._visible(stream, cursor.shard)
        if cursor.after >= 0 and shard.is_trimmed(cursor.after + 1):
            raise Refusal("TrimmedDataAccessException", "")
        if shard.empty_pages:
            shard.empty_pages -= 1
            return {"Records": [], "NextShardIterator": cursor.token()}
        closed_before = shard.end is not None  # if it is closed while we read, an empty page does not mean its end
        limit = parameters.get("Limit", 1000)
        page = await self._real(headers, "GetRecords", {"ShardIterator": cursor.real, "Limit": limit})
        numbers = [record["dynamodb"]["SequenceNumber"] for record in page["Records"]]
        stream.saw(numbers)
        pairs = zip(page["Records"], numbers, strict=True)
        answer: dict[str, Any] = {
            "Records": [record for record, number in pairs if shard.owns(stream.place(record), int(number))]
        }
        over = (
            int(numbers[-1]) >= int(shard.end) if numbers and shard.end is not None else closed_before and not numbers
        )
        following = page.get("NextShardIterator")
        if following is not None and not over:
            after = int(numbers[-1]) if numbers else cursor.after
            answer["NextShardIterator"] = Cursor(shard.shard_id, stream.arn, following, self._generation, after).token()
        return answer

    # --- inside --------------------------------------------------------------------------------------------------

    async def _real_iterator(
        self, headers: dict[str, str], stream: VirtualStream, kind: str, number: str | None
    ) -> str:
        request = {"StreamArn": stream.arn, "ShardId": stream.real_shard, "ShardIteratorType": kind}
        if number is not None:
            request["SequenceNumber"] = number
        return str((await self._real(headers, "GetShardIterator", request))["ShardIterator"])

    async def _close(self, stream: VirtualStream, shard: VirtualShard, ranges: list[tuple[int, int]]) -> list[str]:
        async with self._closing:
            if shard.end is not None:
                raise ValueError(f"{shard.shard_id} is closed already")
            await self._look_for_tail(stream)
            # No await from here on. The tail covers every record that any reader was given.
            shard.end = stream.tail or number_text(0)
            visible_at = time.monotonic() + self._hidden_for
            children = [new_shard(shard.shard_id, low, high, shard.end, visible_at) for low, high in ranges]
            stream.shards |= {child.shard_id: child for child in children}
            if stream.tail is None:  # nothing was written so far: the children begin with the stream
                for child in children:
                    child.start = None
            return [child.shard_id for child in children]

    async def _look_for_tail(self, stream: VirtualStream) -> None:
        kind = "TRIM_HORIZON" if stream.tail is None else "AFTER_SEQUENCE_NUMBER"
        iterator: str | None = await self._real_iterator(stream.headers, stream, kind, stream.tail)
        while iterator is not None:
            page = await self._real(stream.headers, "GetRecords", {"ShardIterator": iterator, "Limit": 1000})
            if not page["Records"]:
                return
            stream.saw([record["dynamodb"]["SequenceNumber"] for record in page["Records"]])
            iterator = page.get("NextShardIterator")

    def _find(self, shard_id: str) -> tuple[VirtualStream, VirtualShard]:
        for stream in self._streams.values():
            if shard_id in stream.shards:
                return stream, stream.shards[shard_id]
        raise KeyError(f"no virtual shard {shard_id}: a stream gets its shards when it is first described")

    def _visible(self, stream: VirtualStream, shard_id: str) -> VirtualShard:
        shard = stream.shards.get(shard_id)
        if shard is None or shard.gone or shard.visible_at > time.monotonic():
            raise Refusal("ResourceNotFoundException", "Requested resource not found: Shard does not exist")
        return shard


class ProxyThread:
    """The proxy in a thread with a loop of its own, as a context manager: for tests that drive other processes.

    ``call("split", shard_id)`` runs a method of the proxy there and returns its result.
    """

    def __init__(self, upstream: str, *, shards: int = 1, describe_page: int = 100) -> None:
        self._options: dict[str, Any] = {"upstream": upstream, "shards": shards, "describe_page": describe_page}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="reshard-proxy", daemon=True)
        self._proxy: ReshardProxy | None = None

    @property
    def proxy(self) -> ReshardProxy:
        """The proxy itself. Its plain attributes may be read from any thread; for methods use ``call``."""
        if self._proxy is None:
            raise RuntimeError("the proxy is used outside its 'with' block")
        return self._proxy

    @property
    def endpoint(self) -> str:
        return self.proxy.endpoint

    def call(self, method: str, *arguments: Any, timeout: float = 30.0, **options: Any) -> Any:
        """Run one method of the proxy and wait for its result."""
        coroutine = getattr(self.proxy, method)(*arguments, **options)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def __enter__(self) -> Self:
        self._thread.start()

        async def start() -> ReshardProxy:
            return await ReshardProxy(**self._options).__aenter__()

        try:
            self._proxy = asyncio.run_coroutine_threadsafe(start(), self._loop).result(30)
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self.proxy.__aexit__(None, None, None), self._loop).result(30)
        finally:
            self._stop_loop()

    def _stop_loop(self) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


async def _cancel_others() -> None:
    """Requests that are still being delayed when the test is over."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
