"""What the clients of a loop sign with, in virtual time, and a session of the SDK with a provider on this machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError, NoCredentialsError

from consumer.aws.credentials import ANSWER_DEADLINE, RENEW_BEFORE, Found, HeldCredentials, pause_before_renewal
from consumer.aws.errors import ApiCaller, AwsConfigurationError, CredentialsRejected
from consumer.aws.session import AwsSession
from consumer.domain.errors import DependencyError, PermissionDenied
from consumer.testing.virtual_loop import Process
from tests.support.virtual_time import in_virtual_time

HOUR = 3600.0


class Provider:
    """Gives ``KEY1``, ``KEY2``, ... for ``seconds`` each, unless ``fault`` says otherwise. ``asked`` is when."""

    def __init__(self, clock: Process, seconds: float = HOUR) -> None:
        self.clock = clock
        self.seconds = seconds
        self.asked: list[float] = []
        self.key: str | None = None  # always this one
        self.method = "container-role"
        self.fault: Callable[[], Awaitable[Found | None]] | None = None

    async def __call__(self) -> Found | None:
        self.asked.append(self.clock.monotonic())
        if self.fault is not None:
            return await self.fault()
        return self.found(self.key or f"KEY{len(self.asked)}", self.seconds)

    def found(self, key: str, seconds: float) -> Found:
        ends = None if math.isinf(seconds) else self.clock.wall() + seconds
        return Found(ReadOnlyCredentials(key, "secret", None, None), self.method, ends)


async def hang() -> Found | None:
    await asyncio.Event().wait()
    return None


async def fail() -> Found | None:
    raise OSError("no route to the metadata service")


async def nothing() -> Found | None:
    return None


async def odd() -> Found | None:
    raise KeyError("AccessKeyId")


@asynccontextmanager
async def renewed(provider: Provider, ends: list[float | None] | None = None) -> AsyncIterator[HeldCredentials]:
    held = HeldCredentials(provider, clock=provider.clock, ends=(ends if ends is not None else []).append)
    await held.obtain()
    renewal = asyncio.create_task(held.run())
    try:
        yield held
    finally:
        renewal.cancel()
        await asyncio.wait({renewal})
        await held.close()


async def key_of(held: HeldCredentials) -> str:
    key: str = (await held.get_frozen_credentials()).access_key
    return key


async def at_once(held: HeldCredentials, clock: Process) -> str:
    """The key that a call signs with, which must not take any time at all."""
    before = clock.monotonic()
    key = await key_of(held)
    assert clock.monotonic() == before
    return key


@pytest.mark.parametrize(
    ("left", "pause"), [(HOUR, HOUR - RENEW_BEFORE), (899.0, 60.0), (300.0, 30.0), (20.0, 5.0), (-5.0, 5.0)]
)
def test_when_a_provider_is_asked(left: float, pause: float) -> None:
    assert pause_before_renewal(left) == pause


def test_new_ones_are_asked_for_a_quarter_of_an_hour_before_the_end() -> None:
    async def work(clock: Process) -> None:
        provider, ends = Provider(clock), list[float | None]()
        async with renewed(provider, ends) as held:
            first_end = clock.wall() + HOUR
            assert ends == [pytest.approx(first_end)]
            while len(ends) < 2:
                assert await at_once(held, clock) == "KEY1"
                await asyncio.sleep(10.0)
            assert 0.9 * (HOUR - RENEW_BEFORE) <= provider.asked[1] - provider.asked[0] <= HOUR - RENEW_BEFORE
            assert await at_once(held, clock) == "KEY2"

    in_virtual_time(work)


@pytest.mark.parametrize("fault", [hang, fail, nothing, odd])
def test_a_provider_that_does_not_work_costs_nothing_while_the_present_ones_hold(
    fault: Callable[[], Awaitable[Found | None]],
) -> None:
    """Up to the last second of an hour, whatever it does; then one question for all callers; then it works again."""

    async def work(clock: Process) -> None:
        provider = Provider(clock)
        async with renewed(provider) as held:
            end = clock.monotonic() + HOUR
            provider.fault = fault
            while clock.monotonic() < end - 1.0:
                assert await at_once(held, clock) == "KEY1"
                await asyncio.sleep(0.9)
            assert 10 < len(provider.asked) < 80
            await asyncio.sleep(ANSWER_DEADLINE)
            asked = len(provider.asked)
            answers = await asyncio.gather(*[key_of(held) for _ in range(50)], return_exceptions=True)
            assert {type(answer) for answer in answers} == {CredentialRetrievalError}
            assert len(provider.asked) <= asked + 1
            provider.fault = None
            await asyncio.sleep(2 * ANSWER_DEADLINE)
            assert (await at_once(held, clock)).startswith("KEY")

    in_virtual_time(work)


def test_what_is_no_answer_never_takes_the_place_of_what_holds() -> None:
    """Expired ones, older ones, ones without a key, and those of another provider, as while a file is replaced."""

    async def work(clock: Process) -> None:
        provider = Provider(clock)
        async with renewed(provider) as held:
            end = clock.monotonic() + HOUR
            other = Provider(clock)
            other.method = "iam-role"
            for found in (
                provider.found("EXPIRED", -1.0),
                provider.found("OLDER", 5.0),
                provider.found("", HOUR),
                other.found("OTHER", HOUR),
            ):

                async def answer(found: Found = found) -> Found | None:
                    return found

                provider.fault = answer
                asked = len(provider.asked)
                while len(provider.asked) == asked:
                    await asyncio.sleep(5.0)
                assert await at_once(held, clock) == "KEY1"
            assert clock.monotonic() < end

    in_virtual_time(work)


def test_keys_without_an_end_are_read_again_after_a_refusal_and_only_then() -> None:
    async def work(clock: Process) -> None:
        provider, ends = Provider(clock, math.inf), list[float | None]()
        provider.key = "OLD"
        async with renewed(provider, ends) as held:
            await asyncio.sleep(24 * HOUR)
            assert (len(provider.asked), ends) == (1, [None])
            for _ in range(600):  # a minute of calls that are all refused
                held.refused()
                await asyncio.sleep(0.1)
            assert 4 < len(provider.asked) < 10
            provider.key = "NEW"
            held.refused()
            await asyncio.sleep(20.0)
            assert await at_once(held, clock) == "NEW"
            asked = len(provider.asked)
            await asyncio.sleep(24 * HOUR)
            assert len(provider.asked) == asked

    in_virtual_time(work)


def test_a_refusal_that_goes_on_for_days_costs_no_call_more_than_its_refusal() -> None:
    async def work(clock: Process) -> None:
        provider = Provider(clock, math.inf)
        provider.key = "OLD"
        async with renewed(provider) as held:
            for _ in range(2000):
                held.refused()
                await asyncio.sleep(30.0)
            assert len(provider.asked) > 1500
            assert await at_once(held, clock) == "OLD"

    in_virtual_time(work)


def test_after_a_refusal_other_keys_count_also_when_they_end_earlier() -> None:
    async def work(clock: Process) -> None:
        provider = Provider(clock)
        async with renewed(provider) as held:
            provider.seconds = 600.0
            held.refused()
            await asyncio.sleep(0.1)
            assert await at_once(held, clock) == "KEY2"

    in_virtual_time(work)


def test_a_wall_clock_that_jumps_ends_nothing() -> None:
    async def work(clock: Process) -> None:
        provider, offset = Provider(clock), 0.0

        class Jumping:
            def monotonic(self) -> float:
                return clock.monotonic()

            def wall(self) -> float:
                return clock.wall() + offset

        held = HeldCredentials(provider, clock=Jumping())
        await held.obtain()
        offset = 24 * HOUR
        assert await at_once(held, clock) == "KEY1"

    in_virtual_time(work)


def test_the_first_question_raises_what_is_wrong() -> None:
    async def work(clock: Process) -> None:
        for fault, error in ((fail, OSError), (nothing, NoCredentialsError), (odd, CredentialRetrievalError)):
            provider = Provider(clock)
            provider.fault = fault
            with pytest.raises(error):
                await HeldCredentials(provider, clock=clock).obtain()
        provider.fault = hang
        with pytest.raises(TimeoutError):
            await HeldCredentials(provider, clock=clock).obtain()

    in_virtual_time(work)


# --- the SDK's chain -------------------------------------------------------------------------------------------------


ROLE = "arn:aws:iam::000000000000:role/orders"
REQUEST_ID = {"x-amzn-RequestId": "1"}  # without it no service has answered


class Endpoint:
    """A container's credential endpoint and an AWS service in one: ``answer`` gives the credentials, and ``keys`` are
    those that calls were signed with. Calls signed with a key of ``revoked`` are refused."""

    def __init__(self) -> None:
        self.port = 0
        self.keys: list[str] = []
        self.revoked: set[str] = set()
        self.asked = 0
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = self.gives("KEY1", HOUR)

    def gives(self, key: str, seconds: float) -> Callable[[], Awaitable[web.StreamResponse]]:
        async def answer() -> web.StreamResponse:
            expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
            return web.json_response(
                {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": expiry.isoformat()}
            )

        return answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/credentials":
            self.asked += 1
            return await self.answer()
        key = request.headers["Authorization"].split("Credential=")[1].split("/")[0]
        self.keys.append(key)
        if key in self.revoked:
            error = {"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "expired"}
            return web.json_response(error, status=400, headers=REQUEST_ID)
        return web.json_response({"TableNames": []}, headers=REQUEST_ID)


@pytest.fixture
async def endpoint(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    runner = web.ServerRunner(web.Server(endpoint.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.port = runner.addresses[0][1]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{endpoint.url}/credentials")
    yield endpoint
    await runner.cleanup()


async def call(session: AwsSession) -> None:
    client = await session.client("dynamodb")
    await ApiCaller(None, session.credentials_refused).call("ListTables", "tables", client.list_tables(), timeout=10.0)


async def never() -> web.StreamResponse:
    await asyncio.sleep(HOUR)
    raise AssertionError("the test is over")


async def unavailable() -> web.StreamResponse:
    return web.Response(status=503)


@pytest.mark.parametrize("answer", [never, unavailable])
async def test_no_call_waits_for_a_provider_while_its_credentials_hold(
    endpoint: Endpoint, answer: Callable[[], Awaitable[web.StreamResponse]]
) -> None:
    """Five minutes before the end the SDK itself asks in the middle of every call, and lets all others wait."""
    endpoint.answer = endpoint.gives("KEY1", 300.0)
    async with AwsSession("us-east-1", {"dynamodb": endpoint.url}) as session:
        endpoint.answer = answer
        async with asyncio.timeout(30.0):
            await asyncio.gather(*[call(session) for _ in range(20)])
    assert set(endpoint.keys) == {"KEY1"}
    assert endpoint.asked == 1


async def refused_until(session: AwsSession, works: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not works():
            with suppress(CredentialsRejected):
                await call(session)


async def test_a_token_that_is_refused_is_replaced_by_a_new_one(endpoint: Endpoint) -> None:
    async with AwsSession("us-east-1", {"dynamodb": endpoint.url}) as session:
        await call(session)
        endpoint.revoked, endpoint.answer = {"KEY1"}, endpoint.gives("KEY2", HOUR)
        await refused_until(session, lambda: endpoint.keys[-1] == "KEY2")
        await call(session)
    assert endpoint.keys[-1] == "KEY2"


async def test_keys_that_change_in_a_file_are_read_again(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text("[default]\naws_access_key_id = KEY1\naws_secret_access_key = s\n")
    async with AwsSession("us-east-1", {"dynamodb": endpoint.url}) as session:
        await call(session)
        endpoint.revoked = {"KEY1"}
        file.write_text("[default]\naws_access_key_id = KEY2\naws_secret_access_key = s\n")
        await refused_until(session, lambda: endpoint.keys[-1] == "KEY2")
    assert set(endpoint.keys) == {"KEY1", "KEY2"}


@pytest.mark.parametrize(
    "profile", ["[default]", f"[default]\nrole_arn = {ROLE}\nsource_profile = base\n[profile base]"]
)
async def test_a_program_that_hangs_is_not_left_behind(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str
) -> None:
    """A ``credential_process`` that never answers would stay for each time that it is asked; also that of the profile
    from which a role is assumed."""
    monkeypatch.setattr("consumer.aws.credentials.ANSWER_DEADLINE", 1.0)
    program, pid = tmp_path / "program.py", tmp_path / "pid"
    program.write_text(
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)"
    )
    config = tmp_path / "config"
    config.write_text(f"{profile}\ncredential_process = {sys.executable} {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with pytest.raises(DependencyError):
        await AwsSession("us-east-1", {}).__aenter__()
    async with asyncio.timeout(5.0):
        while lives(int(pid.read_text())):  # it is reaped a moment later
            await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_silent_metadata_service_may_answer_later(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials the machine's role is what may still come, unless the user has switched it off."""
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    with pytest.raises(DependencyError, match="no AWS credentials were found") as caught:
        await AwsSession("us-east-1", {}).__aenter__()
    assert caught.value.exit_code == 69
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(AwsConfigurationError, match="no AWS credentials were found"):
        await AwsSession("us-east-1", {}).__aenter__()


async def test_a_role_that_may_not_be_assumed_is_a_permission(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    config = tmp_path / "config"
    config.write_text(
        "[default]\nrole_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n"
        "[profile base]\naws_access_key_id = KEY\naws_secret_access_key = s\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    async def deny(_: web.BaseRequest) -> web.Response:
        text = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
        return web.Response(status=403, text=text, content_type="text/xml")

    runner = web.ServerRunner(web.Server(deny))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        with pytest.raises(PermissionDenied, match="sts:AssumeRole"):
            await AwsSession("us-east-1", {}).__aenter__()
    finally:
        await runner.cleanup()
