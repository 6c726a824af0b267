"""A proxy with faults in front of a real local server: what every such proxy has.

Everything passes through. Tests queue faults for any operation of any service, through methods or over HTTP
(``POST /_proxy/fault`` with ``{"operation": ...}``), and a subclass answers operations of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import aiohttp
from aiohttp import web

from tests.support.proxy_faults import Fault, Refusal, UpstreamError, apply, error_response, json_response

HOP_BY_HOP = {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "date", "server"}
MOST_BODY = 64 * 1024 * 1024

Answer = Callable[[dict[str, str], dict[str, Any]], Awaitable[dict[str, Any]]]
"""Headers and parameters of a request to the parameters of the answer."""


class FaultProxy:
    """The proxy, running on 127.0.0.1 in the loop that entered it. Its methods take effect at once.

    Args:
        upstream: URL of the real server.
    """

    ADMIN: ClassVar[tuple[str, ...]] = ("fault", "clear_faults", "calls_of")

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.rstrip("/")
        self.endpoint = ""
        self.calls: dict[str, int] = {}
        self._faults: list[Fault] = []
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

    async def fault(self, operation: str, kind: str = "error", **options: Any) -> None:
        """Queue a fault (see ``proxy_faults.Fault``): ``fault("GetRecords", code="ThrottlingException", status=400)``.

        Kinds: error, lose_request, lose_response (after it was applied), delay (``seconds``), truncate (``keep``,
        ``honest_length``), and reply, which answers as something that is not the service (``status``, ``body``,
        ``content_type``; ``applied``: the service has done what was asked), and rewrite, which changes ``old`` to
        ``new`` in its answer, and anonymous, which leaves out the headers that mark it. All take ``times`` and
        ``skip``.
        """
        self._faults.append(Fault(operation, kind, **options))  # type: ignore[arg-type]  # options of a Fault

    async def clear_faults(self) -> None:
        self._faults.clear()

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
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            if (own := self._own().get(target)) is not None:
                return json_response(await own(headers, json.loads(body)))
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

    def _own(self) -> Mapping[str, Answer]:
        """What this proxy answers by itself: by X-Amz-Target."""
        return {}

    async def _real(self, headers: Mapping[str, str], target: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Ask the real server, with the headers of the client that asked us (they carry region and account)."""
        assert self._client is not None
        own = {**headers, "X-Amz-Target": target}
        async with self._client.post(self.upstream + "/", data=json.dumps(parameters), headers=own) as answer:
            body = await answer.read()
            if answer.status >= 300:
                raise UpstreamError(answer.status, body)
            parsed: dict[str, Any] = json.loads(body)
            return parsed


P = TypeVar("P", bound=FaultProxy)


class InThread(Generic[P]):
    """A proxy in a thread with a loop of its own, as a context manager: for tests that drive other processes.

    ``call("fault", "GetRecords")`` runs a method of the proxy there and returns its result.
    """

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._proxy: P | None = None

    @property
    def proxy(self) -> P:
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

        async def start() -> P:
            return await self._make().__aenter__()

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
