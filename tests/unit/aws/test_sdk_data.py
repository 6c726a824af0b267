"""What the clients of a process share: models that are read once, and one TLS context for all."""

from __future__ import annotations

import asyncio
import builtins
import gzip
import os
import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.exceptions import SSLError
from botocore.loaders import Loader

from consumer.aws import connections, sdk_data
from consumer.aws.errors import AwsConfigurationError
from consumer.aws.session import AwsSession
from tests.support.authorities import LOCAL_SERVER

TYPES = ("service-2", "endpoint-rule-set-1")


@pytest.fixture(autouse=True)
def nothing_shared(aws_environment: None) -> Iterator[None]:
    shared = (sdk_data.models, connections.trust)
    for cached in shared:
        cached.cache_clear()
    yield
    for cached in shared:
        cached.cache_clear()


@pytest.mark.parametrize("service", sdk_data.SERVICES)
def test_models_are_what_the_sdk_itself_reads(service: str) -> None:
    ours, sdks = sdk_data.models(None), Loader()
    for kind in TYPES:
        ours_read, sdks_read = (loader.load_service_model(service, kind) for loader in (ours, sdks))
        assert ours_read == sdks_read
        shapes = [list(read.get("shapes", read.get("parameters"))) for read in (ours_read, sdks_read)]
        assert shapes[0] == shapes[1]  # in their order
    assert ours.load_data("endpoints") == sdks.load_data("endpoints")


async def test_a_model_is_read_once_for_all_sessions_and_no_other_service_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: Counter[str] = Counter()
    looked: list[str] = []
    decode, listdir = gzip.open, os.listdir

    def counted(real: Any) -> Any:
        def opened(name: Any, *rest: Any, **options: Any) -> Any:
            found = real(name, *rest, **options)
            if str(name).endswith((".json", ".json.gz")):
                read[str(name)] += 1
            return found

        return opened

    def listed(folder: Any = ".") -> list[str]:
        looked.append(str(folder))
        return listdir(folder)

    opens = {".json": counted(builtins.open), ".json.gz": counted(decode)}
    monkeypatch.setattr(sdk_data, "_FORMATS", opens)
    monkeypatch.setattr(os, "listdir", listed)
    for _ in range(2):  # the control thread has a session of its own
        async with AwsSession("eu-west-1", {}) as session:
            for service in sdk_data.SERVICES:
                await session.client(service)
    assert set(read.values()) == {1}
    assert {Path(name).parts[-3] for name in read if "service-2" in name} == set(sdk_data.SERVICES)
    assert {Path(folder).name for folder in looked} <= set(sdk_data.SERVICES)


async def test_models_of_ones_own_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in ``AWS_DATA_PATH``: a newer version of the service wins."""
    folder = tmp_path / "sqs" / "2099-01-01"
    folder.mkdir(parents=True)
    model = next(Path(Loader.BUILTIN_DATA_PATH).glob("sqs/*/service-2.json*"))
    (folder / model.name).write_bytes(model.read_bytes())
    monkeypatch.setenv("AWS_DATA_PATH", "$MODELS")
    monkeypatch.setenv("MODELS", str(tmp_path))
    assert sdk_data.models("$MODELS").determine_latest_version("sqs", "service-2") == "2099-01-01"
    async with AwsSession("eu-west-1", {}) as session:
        assert (await session.client("sqs")).meta.service_model.service_name == "sqs"


async def test_a_broken_model_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "sqs" / "2099-01-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text('{"metadata": ')
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    async with AwsSession("eu-west-1", {}) as session:
        with pytest.raises(AwsConfigurationError, match=r"2099-01-01/service-2\.json"):
            await session.client("sqs")


async def test_all_clients_share_one_context_that_trusts_what_is_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And that nobody else is trusted by: a server that the authorities do not know is refused."""
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["X-Amz-Target"])
        return web.json_response({"TableNames": [], "Streams": []}, headers={"x-amzn-RequestId": "1"})

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(LOCAL_SERVER)
    application = web.Application()
    application.router.add_route("*", "/", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server)
    await site.start()
    port = runner.addresses[0][1]
    endpoints = dict.fromkeys(("dynamodb", "dynamodb_streams"), f"https://127.0.0.1:{port}")
    loaded: list[str] = []
    load = ssl.SSLContext.load_verify_locations

    def counted(context: ssl.SSLContext, cafile: Any = None, *rest: Any) -> None:
        loaded.append(str(cafile))
        load(context, cafile, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
    try:
        async with AwsSession("eu-west-1", endpoints) as session:
            with pytest.raises(SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                await (await session.client("dynamodb")).list_tables()
        assert seen == []
        loaded.clear()
        monkeypatch.setenv("AWS_CA_BUNDLE", str(LOCAL_SERVER))

        async def call() -> None:
            async with AwsSession("eu-west-1", endpoints) as session:
                await (await session.client("dynamodb")).list_tables()
                await (await session.client("dynamodbstreams")).list_streams()

        await call()
        await asyncio.to_thread(asyncio.run, call())  # the session of the control thread
        assert len(seen) == 4
        assert loaded == [str(LOCAL_SERVER)]
    finally:
        await runner.cleanup()


async def test_a_proxy_with_authorities_has_a_context_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the daemon leads there, but code may use the class."""
    monkeypatch.setattr(connections, "trust", lambda authorities: pytest.fail("the shared one"))
    of_proxy = {"proxy_ca_bundle": str(LOCAL_SERVER)}
    connector = connections.HttpSession(proxies_config=of_proxy)._create_connector("https://127.0.0.1:9")
    context = vars(connector)["_ssl"]
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    await connector.close()


@pytest.mark.parametrize("path", ["", os.pathsep, f"$NOT_SET{os.pathsep}", "~nobody-has-this-name"])
def test_what_names_no_folder_is_no_place_of_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str) -> None:
    """In particular not the working directory: what lies there would take the place of the SDK's own data."""
    (tmp_path / "endpoints.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    assert sdk_data.models(path.replace("$NOT_SET", "")).load_data("endpoints") != {}
    assert sdk_data.models(path).load_data("endpoints") == Loader().load_data("endpoints")
