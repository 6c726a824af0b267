"""How many dead letters wait at the destination: asked now and then, beside the work, which never waits for it."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn

import structlog

from consumer.domain.errors import StreamConsumerError
from consumer.operate.collectors import OptionalGauge
from consumer.ports.dead_letters import DeadLetters
from consumer.ports.time import Randomness

log = structlog.get_logger()

PERIOD: Final = 60.0  # seconds between two questions, on average: one costs as much as sending a letter


async def watch_backlog(letters: DeadLetters, gauge: OptionalGauge, random: Randomness) -> NoReturn:
    """Keep ``gauge`` up to date for ever. A question without an answer leaves the number unknown, and is logged once
    until there is an answer or another reason."""
    told = ""
    while True:
        try:
            gauge.value = await letters.backlog()
            told = ""
        except StreamConsumerError as error:
            gauge.value = None
            reason = type(error).__name__
            if reason != told:
                log.warning("dead_letter.backlog_unknown", destination=letters.destination, error=str(error))
            told = reason
        await asyncio.sleep(PERIOD * (0.5 + random.random()))  # workers that start at once ask one after the other
