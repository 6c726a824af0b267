"""AWS is only who has a certificate of an authority that is trusted, for the name that was asked for: directly and
through a proxy, of the services and of whoever gives the credentials."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from consumer.aws import sdk_data
from consumer.aws.credentials import Found, sdk_chain
from consumer.aws.errors import ApiCaller
from consumer.aws.session import AwsSession
from consumer.domain.errors import StreamConsumerError
from tests.support.authorities import LOCAL_SERVER

ROLE = "arn:aws:iam::000000000000:role/orders"
KEYS = """<AccessKeyId>KEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration>"""


class Server:
    """Answers as every service, with a certificate of ``LOCAL_SERVER`` for 127.0.0.1, and is what a proxy leads to,
    whatever the proxy was asked for. ``seen``: what it was told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.connected: list[str] = []
        self.port = self.proxy = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = (await request.read()).decode()
        if request.path == "/credentials":
            self.seen.append(request.headers.get("Authorization", ""))
            keys = {"AccessKeyId": "KEY", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
            return web.json_response(keys)
        self.seen.append(body)
        if "Action=" in body:
            action = body.partition("Action=")[2].partition("&")[0]
            result = f"<{action}Result><Credentials>{KEYS}</Credentials></{action}Result>"
            text = f"<{action}Response>{result}</{action}Response>"
            return web.Response(text=text, content_type="text/xml", headers={"x-amzn-RequestId": "1"})
        return web.json_response({"TableNames": ["orders"]}, headers={"x-amzn-RequestId": "1"})

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The proxy."""
        asked = await reader.readuntil(b"\r\n\r\n")
        self.connected.append(asked.split()[1].decode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        await asyncio.gather(_pipe(reader, to_server), _pipe(from_server, writer))


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
    target.close()


@pytest.fixture
async def server(aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(LOCAL_SERVER)
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server.port = runner.addresses[0][1]
    proxy = await asyncio.start_server(server.lead, "127.0.0.1", 0)
    server.proxy = proxy.sockets[0].getsockname()[1]
    for name in ("AWS_CA_BUNDLE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield server
    proxy.close()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    sdk_data.trust.cache_clear()
    yield
    sdk_data.trust.cache_clear()


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's authority is trusted."""
    monkeypatch.setattr(sdk_data, "get_cert_path", lambda verify: str(LOCAL_SERVER))


Set = Callable[[Server, pytest.MonkeyPatch], dict[str, str]]


def other_authority(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return {"host": f"https://127.0.0.1:{server.port}"}


def other_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known(monkeypatch)
    return {"host": f"https://localhost:{server.port}"}


def proxy_and_other_authority(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.proxy}")
    return {"proxied": "127.0.0.1", "host": f"https://127.0.0.1:{server.port}"}


def proxy_and_other_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known(monkeypatch)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.proxy}")
    return {"proxied": "orders.example", "host": "https://orders.example"}


def meant(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known(monkeypatch)
    return {"host": f"https://127.0.0.1:{server.port}"}


def meant_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    return meant(server, monkeypatch) | proxy_and_other_authority(server, monkeypatch)


IMPOSTORS = [other_authority, other_name, proxy_and_other_authority, proxy_and_other_name]
MEANT = [meant, meant_through_a_proxy]


async def tables(host: str) -> None:
    async with AwsSession("eu-west-1", {"dynamodb": host}) as session:
        client = await session.client("dynamodb")
        found = await ApiCaller().call("ListTables", "tables", client.list_tables(), timeout=10.0)
        assert found["TableNames"] == ["orders"]


@pytest.mark.parametrize("case", IMPOSTORS)
async def test_no_service_but_the_one_that_was_meant_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, case: Set
) -> None:
    asked = case(server, monkeypatch)
    with pytest.raises(StreamConsumerError, match=r"CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"):
        await tables(asked["host"])
    assert server.seen == []
    assert [name.partition(":")[0] for name in server.connected] == ([asked["proxied"]] if "proxied" in asked else [])


@pytest.mark.parametrize("case", MEANT)
async def test_the_one_that_was_meant_answers(server: Server, monkeypatch: pytest.MonkeyPatch, case: Set) -> None:
    asked = case(server, monkeypatch)
    await tables(asked["host"])
    assert server.seen == ["{}"]
    assert len(server.connected) == ("proxied" in asked)


def web_identity(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the token of a pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", host)


def assumed_role(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = f"[profile orders]\nrole_arn = {ROLE}\nsource_profile = base\n"
    base = "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "config").write_text(profile + base)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "orders")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", host)


def container(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{host}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "the token of a task")


Provider = Callable[[str, pytest.MonkeyPatch, Path], None]
PROVIDERS = [web_identity, assumed_role, container]


async def credentials(provider: Provider, host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Found | None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    provider(host, monkeypatch, tmp_path)
    return await sdk_chain("eu-west-1")


@pytest.mark.parametrize("case", IMPOSTORS)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_nobody_else_is_told_a_token(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: Set, provider: Provider
) -> None:
    """A container's endpoint is asked directly, whatever proxies are set."""
    host = case(server, monkeypatch)["host"]
    with pytest.raises(Exception, match=r"CERTIFICATE_VERIFY_FAILED|orders\.example") as caught:
        await credentials(provider, host, monkeypatch, tmp_path)
    assert not isinstance(caught.value, aiohttp.ServerDisconnectedError)
    assert server.seen == []


@pytest.mark.parametrize("case", MEANT)
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_who_was_meant_gives_credentials(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: Set, provider: Provider
) -> None:
    asked = case(server, monkeypatch)
    found = await credentials(provider, asked["host"], monkeypatch, tmp_path)
    assert found is not None
    assert found.keys.access_key == "KEY"
    assert len(server.seen) == 1
    assert bool(server.connected) == ("proxied" in asked and provider is not container)
