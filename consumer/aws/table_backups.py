"""Point-in-time recovery of the lease table: any second of the last 35 days, should rows be damaged or deleted."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from consumer.aws.errors import ApiCaller
from consumer.aws.session import AwsSession
from consumer.domain.errors import DependencyError
from consumer.ports.time import ServiceClock
from consumer.settings.model import Settings

READY_DEADLINE: Final = 60.0  # seconds that the backups of a new table may be in preparation
READY_POLL: Final = 1.0  # seconds between attempts meanwhile
_IN_PREPARATION: Final = "ContinuousBackupsUnavailableException"


async def keep_backups(settings: Settings, clock: ServiceClock) -> None:
    """Turn point-in-time recovery on for the lease table of ``settings``; nothing changes where it is on already.

    Raises:
        PermissionDenied: dynamodb:UpdateContinuousBackups is not allowed.
        DependencyError: the service refused, or had not prepared the backups of a new table after READY_DEADLINE.
    """
    session = AwsSession(
        settings.aws.region,
        settings.aws.endpoints.secret_urls(),
        max_pool_connections=1,
        clock=clock,
        heard=clock.heard,
    )
    async with session:
        client: Any = await session.client("dynamodb")
        caller = ApiCaller(None, session.credentials_refused)
        table = settings.leases.table
        request = {"TableName": table, "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
        deadline = time.monotonic() + READY_DEADLINE
        while True:
            call = client.update_continuous_backups(**request)
            try:
                await caller.call("UpdateContinuousBackups", f"lease table {table}", call)
                return
            except DependencyError as error:
                if error.code != _IN_PREPARATION or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(READY_POLL)
