"""Time is injected, aware and UTC."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol

_EARLY_S: Final = 0.002
"""How much too early a timer of an event loop may ring: uvloop's count in whole milliseconds."""


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that moves only when told, for tests and rehearsals."""

    def __init__(self, start: datetime) -> None:
        self._now = start.astimezone(UTC)

    def now(self) -> datetime:
        """The instant it was last set to."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move on (or back, when negative)."""
        self._now += by


def epoch_ms(instant: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC, the wire form of instants in order and transaction bodies."""
    return int(instant.timestamp() * 1000)


def today(clock: Clock) -> date:
    """The present date in UTC."""
    return clock.now().date()


async def sleep_until(instant_s: float) -> None:
    """Wait for an instant of `time.monotonic`, in seconds: never less, and not at all when it is over.

    For answers that have to take the same time whatever was found.
    """
    if (left_s := instant_s - time.monotonic()) > 0:
        await asyncio.sleep(left_s + _EARLY_S)
