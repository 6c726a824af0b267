"""What the clients of one event loop sign with.

The SDK fetches credentials that expire again in the middle of a call, under a lock that all other calls wait for: in
the last ten minutes before their end a provider that hangs holds up every call of the process, session renewals
included, although what it would sign with is still good. Here a call signs with what is held, and asks nobody as long
as that holds. One task beside the calls asks the provider, from a quarter of an hour before the end on, and after a
refusal.

Asking means to ask the SDK's whole chain anew, in a session of its own, so that whatever gave the credentials is read
again: a file, a profile, the environment, a token, a metadata service. What answers must be the provider of the first
time: a file that is being replaced at this moment must not turn the daemon into the role of its machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiobotocore.session
import structlog
from aiobotocore.credentials import (
    AioAssumeRoleProvider,
    AioContainerProvider,
    AioInstanceMetadataProvider,
    AioProcessProvider,
)
from aiobotocore.utils import AioContainerMetadataFetcher
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError, NoCredentialsError

from consumer.aws.connections import ClientConfig, FetchingSession, authorities_of
from consumer.aws.errors import one_line
from consumer.ports.time import Clock

log = structlog.get_logger()

RENEW_BEFORE: Final = 900.0  # seconds before their end from which on new credentials are asked for
ANSWER_DEADLINE: Final = 15.0  # seconds; a metadata service that accepts and stays silent must not hang the start
ASK_AGAIN: Final = (5.0, 60.0)  # seconds between two questions: the least and the most
REREAD_AGAIN: Final = 20.0  # seconds at most between two looks for other keys while the present ones are refused
_LOOK: Final = 60.0  # seconds at most of one sleep: timers stand still while a machine is suspended
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Found:
    """What a provider gave. ``method`` is the SDK's name of the provider, ``ends`` Unix time; None for keys without an
    end."""

    keys: ReadOnlyCredentials
    method: str
    ends: float | None


Ask = Callable[[], Awaitable[Found | None]]
"""Asks for credentials; None when there are none. May raise anything."""


class _MachineClock:
    def monotonic(self) -> float:
        return time.clock_gettime(_CLOCK)

    def wall(self) -> float:
        return time.time()


def pause_before_renewal(left: float) -> float:
    """Seconds until a provider is asked again for credentials that end in ``left`` seconds.

    A quarter of an hour before the end; then, because providers give the present ones again until they have others,
    every minute, and more often when less is left than ten minutes.
    """
    least, most = ASK_AGAIN
    return max(left - RENEW_BEFORE, min(most, max(least, left / 10)))


class HeldCredentials:
    """The SDK's credentials object (``get_frozen_credentials`` and ``get_account_id``) of all clients of a session.

    ``obtain`` before use. ``run`` renews them; without it they are renewed by the first call after their end.

    Args:
        ask: asks for credentials, see ``sdk_chain``.
        ends: is told the end (Unix time, or None) of everything that is held from now on.
    """

    def __init__(
        self, ask: Ask, *, clock: Clock | None = None, ends: Callable[[float | None], None] | None = None
    ) -> None:
        self._ask = ask
        self._clock = clock or _MachineClock()
        self._tell_end = ends or (lambda _: None)
        self._held: Found | None = None
        self._until = -math.inf  # monotonic: a wall clock that jumps ends nothing
        self._asking: asyncio.Task[None] | None = None
        self._problem = ""  # of the last question; empty when it was answered well
        self._ask_at = math.inf
        self._asked_at = -math.inf
        self._refused = False
        self._in_vain = 0  # looks for other keys in a row that found the same
        self._wake = asyncio.Event()

    @property
    def method(self) -> str:
        """The SDK's name of the provider."""
        return "" if self._held is None else self._held.method

    # --- what the SDK asks for ---------------------------------------------------------------------------

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What to sign with. CredentialRetrievalError when nothing holds, after one question that all callers share."""
        return (await self._holding()).keys

    async def get_account_id(self) -> str | None:
        account: str | None = (await self._holding()).keys.account_id
        return account

    def get_deferred_property(self, name: str) -> Callable[[], Awaitable[str | None]]:
        """``account_id`` is the only one that the SDK asks for, for endpoints that have it in their name."""
        found: Callable[[], Awaitable[str | None]] = getattr(self, f"get_{name}")
        return found

    async def _holding(self) -> Found:
        if self._left() <= 0:
            if not self._is_asking and self._problem and self._clock.monotonic() < self._ask_at:
                raise CredentialRetrievalError(provider=self.method, error_msg=self._problem)
            await asyncio.shield(self._question())
        if self._held is None or self._left() <= 0:
            raise CredentialRetrievalError(provider=self.method, error_msg=self._problem)
        return self._held

    def refused(self) -> None:
        """A service did not accept what was signed: other keys may be there by now."""
        self._refused = True
        pause = min(REREAD_AGAIN, 2.0 ** (min(self._in_vain, 10) - 1)) if self._in_vain else 0.0
        self._ask_at = min(self._ask_at, self._asked_at + pause)
        self._wake.set()

    # --- renewal -----------------------------------------------------------------------------------------

    async def obtain(self) -> None:
        """Ask for the first time. Raises what the provider raises, NoCredentialsError, or TimeoutError."""
        self._take(await self._answer())

    async def run(self) -> None:
        """Renew until it is cancelled, one question at a time."""
        while True:
            wait = self._ask_at - self._clock.monotonic()
            if wait <= 0:
                await asyncio.wait({self._question()})
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, _LOOK)):
                    await self._wake.wait()

    async def close(self) -> None:
        """End the question under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    @property
    def _is_asking(self) -> bool:
        return self._asking is not None and not self._asking.done()

    def _left(self) -> float:
        return self._until - self._clock.monotonic()

    def _question(self) -> asyncio.Task[None]:
        """The question under way, or a new one. It never raises."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._renew(), name="credentials-question")
        return self._asking

    async def _renew(self) -> None:
        after_refusal, self._refused = self._refused, False
        try:
            found = await self._answer()
            if found.method != self.method:
                raise CredentialRetrievalError(
                    provider=self.method,
                    error_msg=f"they are not there any more; {found.method} would give others (a restart takes them)",
                )
        except Exception as error:  # noqa: BLE001 - providers raise anything; what is held is used as long as it holds
            self._problem = one_line(f"{type(error).__name__}: {error}")
            self._schedule()
            log.warning(
                "credentials.renewal_failed",
                provider=self.method,
                error=self._problem,
                holds_for=None if math.isinf(self._left()) else round(self._left()),
            )
            return
        if not after_refusal and self._lifetime(found) < self._left():
            self._problem = ""
            self._schedule()  # older ones than those that are held
            return
        changed = self._held is None or found.keys != self._held.keys
        self._in_vain = self._in_vain + 1 if after_refusal and not changed else 0
        if changed:
            log.info("credentials.renewed", provider=found.method, holds_for=_rounded(self._lifetime(found)))
        self._take(found)

    async def _answer(self) -> Found:
        """What the provider gives, if it can be used."""
        try:
            async with asyncio.timeout(ANSWER_DEADLINE):
                found = await self._ask()
        except (BotoCoreError, ClientError, OSError):
            raise
        except Exception as error:
            # KeyError where a part is missing, RuntimeError for what has expired: not to be told from a bug of ours.
            found_wrong = one_line(f"{type(error).__name__}: {error}")
            raise CredentialRetrievalError(provider="the AWS credentials chain", error_msg=found_wrong) from error
        if found is None:
            raise NoCredentialsError
        if not (found.keys.access_key and found.keys.secret_key):
            raise CredentialRetrievalError(provider=found.method, error_msg="the answer has no keys in it")
        if self._lifetime(found) <= 0:
            raise CredentialRetrievalError(provider=found.method, error_msg="what it gives has expired already")
        return found

    def _lifetime(self, found: Found) -> float:
        return math.inf if found.ends is None else found.ends - self._clock.wall()

    def _take(self, found: Found) -> None:
        self._held, self._problem = found, ""
        self._until = self._clock.monotonic() + self._lifetime(found)
        self._schedule()
        self._tell_end(found.ends)

    def _schedule(self) -> None:
        self._asked_at = self._clock.monotonic()
        jitter = random.uniform(0.9, 1.0)  # noqa: S311 - jitter only: workers of one role do not ask in one moment
        self._ask_at = self._asked_at + jitter * pause_before_renewal(self._left())


def _rounded(seconds: float) -> int | None:
    return None if math.isinf(seconds) else round(seconds)


def metadata_service_is_asked() -> bool:
    """Whether the SDK's chain ends with the metadata service of the machine, which may come up later than we do."""
    return os.environ.get("AWS_EC2_METADATA_DISABLED", "false").lower() != "true"


async def sdk_chain(region: str | None) -> Found | None:
    """Ask the SDK's own chain of providers from scratch: nothing that a session has cached answers."""
    session = aiobotocore.session.get_session()
    session.set_default_client_config(ClientConfig())
    if region is not None:
        session.set_config_variable("region", region)  # for a role that is assumed through STS
    chain = session.get_component("credential_provider")
    programs: list[asyncio.subprocess.Process] = []
    _prepare(chain, programs, authorities_of(session))
    try:
        credentials = await chain.load_credentials()
        if credentials is None:
            return None
        # Just fetched; the SDK's own rules would fetch them once more when they end within a quarter of an hour.
        credentials._advisory_refresh_timeout = credentials._mandatory_refresh_timeout = 0  # noqa: SLF001 - no public name
        keys = await credentials.get_frozen_credentials()
    finally:
        for program in programs:  # one that hangs must not stay behind each time it is given up
            if program.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    program.kill()
    # The SDK has no public name for the end; a release that renames it leaves keys that a refusal renews.
    end = getattr(credentials, "_expiry_time", None)
    return Found(keys, str(credentials.method), None if end is None else end.timestamp())


def _prepare(chain: Any, programs: list[asyncio.subprocess.Process], authorities: str) -> None:
    """Let a ``credential_process`` be known to whoever gives up waiting for it. And let those who are asked without a
    client be asked as AWS is: directly, and with the same authorities. The chain makes its providers itself, so none of
    this can be an argument."""

    async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
        program = await asyncio.create_subprocess_exec(*command, **options)
        programs.append(program)
        return program

    for provider in chain.providers:
        if isinstance(provider, AioProcessProvider):
            provider._popen = start  # noqa: SLF001 - the chain makes its providers itself, so it cannot be an argument
        elif isinstance(provider, AioAssumeRoleProvider):  # makes others, for the profile that a role is assumed from
            makers = provider._profile_provider_builder  # noqa: SLF001 - made by the chain, as above
            made = partial(_known, makers._create_process_provider, start)  # noqa: SLF001 - its only place for this
            makers._create_process_provider = made  # noqa: SLF001 - its only place for this
        elif isinstance(provider, AioContainerProvider):
            asks = FetchingSession(authorities, timeout=AioContainerMetadataFetcher.TIMEOUT_SECONDS)
            provider._fetcher = AioContainerMetadataFetcher(asks)  # noqa: SLF001 - made by the chain, as above
        elif isinstance(provider, AioInstanceMetadataProvider):
            fetcher = provider._role_fetcher  # noqa: SLF001 - made by the chain, as above
            asks = FetchingSession(authorities, timeout=fetcher._timeout)  # noqa: SLF001 - as configured, said nowhere else
            fetcher._session = asks  # noqa: SLF001 - the fetcher takes no session from outside


def _known(make: Callable[..., Any], start: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    provider = make(*arguments, **options)
    provider._popen = start  # noqa: SLF001 - the SDK's maker takes no argument for it
    return provider
