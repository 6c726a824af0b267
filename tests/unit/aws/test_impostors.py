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

from consumer.aws import connections
from consumer.aws.credentials import Found, sdk_chain
from consumer.aws.errors import ApiCaller, AwsConfigurationError
from consumer.aws.session import AwsSession
from consumer.domain.errors import StreamConsumerError
from tests.support.authorities import LOCAL_SERVER

ROLE = "arn:aws:iam::000000000000:role/orders"
KEYS = """<AccessKeyId>KEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration>"""


class Server:
    """Answers as every service, with a certificate of ``LOCAL_SERVER`` for 127.0.0.1 at ``port`` and as a stranger at
    ``plain``; and is what a proxy leads to, whatever the proxy was asked for. ``seen``: what it was told; ``strange``:
    what the stranger was told. ``redirects`` to the stranger, when it is set, with this status."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.strange: list[str] = []
        self.connected: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.redirects = 0
        self.port = self.plain = self.proxy = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = (await request.read()).decode()
        is_stranger = request.transport is None or request.transport.get_extra_info("ssl_object") is None
        self.headers.append(dict(request.headers))
        if is_stranger:
            self.strange.append(f"{request.path} {body}")
        elif self.redirects:
            to = f"http://127.0.0.1:{self.plain}{request.path_qs}"
            return web.Response(status=self.redirects, headers={"Location": to, "x-amzn-RequestId": "1"})
        if request.path == "/latest/api/token":
            return web.Response(text="token", headers={"x-aws-ec2-metadata-token-ttl-seconds": "21600"})
        if request.path == "/latest/meta-data/iam/security-credentials/":
            return web.Response(text="role")
        if request.path in ("/credentials", "/latest/meta-data/iam/security-credentials/role"):
            self.seen.append(request.headers.get("Authorization", ""))
            keys = {"AccessKeyId": "KEY", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
            return web.json_response({"Code": "Success", **keys})
        self.seen.append(body)
        if "Action=" in body:
            action = body.partition("Action=")[2].partition("&")[0]
            result = f"<{action}Result><Credentials>{KEYS}</Credentials></{action}Result>"
            text = f"<{action}Response>{result}</{action}Response>"
            return web.Response(text=text, content_type="text/xml", headers={"x-amzn-RequestId": "1"})
        headers = {"x-amzn-RequestId": "1", "Set-Cookie": "between=us", "ETag": '"1"'}
        if request.method == "PUT":
            return web.Response(headers=headers)
        return web.json_response({"TableNames": ["orders"]}, headers=headers)

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The proxy."""
        asked = await reader.readuntil(b"\r\n\r\n")
        self.connected.append(asked.split()[1].decode())
        if not asked.startswith(b"CONNECT"):
            writer.close()
            return
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
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.plain = runner.addresses[1][1]
    proxy = await asyncio.start_server(server.lead, "127.0.0.1", 0)
    server.proxy = proxy.sockets[0].getsockname()[1]
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield server
    proxy.close()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def nothing_shared() -> Iterator[None]:
    connections.trust.cache_clear()
    yield
    connections.trust.cache_clear()


def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's authority is trusted."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(LOCAL_SERVER))


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


# --- redirects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_nowhere(server: Server, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    host = meant(server, monkeypatch)["host"]
    server.redirects = status
    with pytest.raises(StreamConsumerError):
        await tables(host)
    assert server.strange == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_token_is_told_to_where_a_redirect_leads(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, provider: Provider
) -> None:
    host = meant(server, monkeypatch)["host"]
    server.redirects = 307
    with pytest.raises(Exception, match=r"307|Received non 200|Unable to parse"):
        await credentials(provider, host, monkeypatch, tmp_path)
    assert server.strange == []


@pytest.mark.parametrize("status", [301, 307])
async def test_a_bucket_that_is_sent_elsewhere_without_its_region(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The SDK asks for the region, is sent elsewhere, asks for the region..."""
    host = meant(server, monkeypatch)["host"]
    server.redirects = status
    async with AwsSession("eu-west-1", {"s3": host}) as session:
        put = (await session.client("s3")).put_object(Bucket="letters", Key="one", Body=b"letter")
        with pytest.raises(StreamConsumerError, match="RedirectLoop"):
            await ApiCaller().call("PutObject", "s3://letters", put)
    assert server.strange == []


# --- what is said ------------------------------------------------------------------------------------------


async def test_a_body_is_sent_without_asking_for_leave(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not know ``Expect`` would never give it."""
    async with AwsSession("eu-west-1", {"s3": meant(server, monkeypatch)["host"]}) as session:
        put = (await session.client("s3")).put_object(Bucket="letters", Key="one", Body=b"letter")
        await ApiCaller().call("PutObject", "s3://letters", put)
    assert "letter" in server.seen[0]
    assert "Expect" not in server.headers[0]


async def test_no_cookie_is_sent_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with AwsSession("eu-west-1", {"dynamodb": meant(server, monkeypatch)["host"]}) as session:
        for _ in range(2):
            await (await session.client("dynamodb")).list_tables()
    assert [headers.get("Cookie") for headers in server.headers] == [None, None]


async def test_the_metadata_service_is_asked_directly(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would be given the role's keys, or answer with those of its own machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{server.plain}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.proxy}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.proxy}")
    found = await sdk_chain("eu-west-1")
    assert found is not None
    assert found.keys.access_key == "KEY"
    assert server.connected == []


async def test_a_proxy_that_refuses_is_quoted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    with pytest.raises(StreamConsumerError, match=r"407 Who are you"):
        await tables(meant(server, monkeypatch)["host"])
    proxy.close()


# --- the authorities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
async def test_an_empty_name_of_authorities_switches_nothing_off(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    """As a variable of Compose or Helm that was not set."""
    if where == "profile":
        (tmp_path / "config").write_text("[default]\nca_bundle =\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    else:
        monkeypatch.setenv(where, "")
    with pytest.raises(StreamConsumerError, match="CERTIFICATE_VERIFY_FAILED"):
        await tables(f"https://127.0.0.1:{server.port}")
    assert server.seen == []


@pytest.mark.parametrize("content", [None, "", "folder"])
@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
async def test_authorities_that_cannot_be_read_are_a_wrong_configuration(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    if where == "profile":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {path}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    else:
        monkeypatch.setenv(where, str(path))
    with pytest.raises(AwsConfigurationError, match=r"ca\.pem \(AWS_CA_BUNDLE, "):
        await tables(f"https://127.0.0.1:{server.port}")
