"""How often a key may ask: its limit of requests a minute, over all processes together.

The bucket of each limited key is in the directory. Processes take a few requests out of it at once and spend them
within a second, and remember for how long it is empty; so a busy key costs a small transaction for some dozens of
requests, one that asks too often costs none, and keys without a limit cost nothing. The sum of what all processes let
through never exceeds the limit; what a process took and didn't spend within the second is lost to the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from strongroom.database import Databases
from strongroom.kernel.errors import Failure, TooOften
from strongroom.kernel.ids import ApiKeyId

TAKEN_FOR_S: Final = 1.0
"""How long a process may spend what it took."""
SHARE: Final = 600
"""A process takes at most this part of a minute's worth at once: what the key may ask in a tenth of a second."""
MAX_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Taken:
    """What a process has of a key's bucket until an instant (epoch seconds); `is_empty`: the bucket is, until then."""

    left: int
    until_s: float
    is_empty: bool = False


class Rates:
    """The limits as one process keeps them."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._taken: dict[ApiKeyId, _Taken] = {}

    async def spend(self, key: ApiKeyId, per_minute: int) -> None:
        """Count a request. Raises errors.TooOften (`REQUEST_RATE_EXCEEDED`)."""
        now = self._databases.clock.now()
        now_s = now.timestamp()
        known = self._taken.get(key)
        if known is not None and now_s < known.until_s:
            if known.is_empty:
                raise _too_often(per_minute, known.until_s - now_s)
            if known.left:
                known.left -= 1
                return
        wanted = max(1, per_minute // SHARE)
        async with self._databases.directory() as directory:
            cursor = await directory.execute(
                "select take_requests(%s, %s, %s, %s)", (key, per_minute, wanted, now), binary=True
            )
            row = await cursor.fetchone()
        taken = row[0] if row is not None else 0
        if len(self._taken) >= MAX_REMEMBERED:
            del self._taken[next(iter(self._taken))]
        if taken == 0:
            wait_s = 60 / per_minute
            self._taken[key] = _Taken(0, now_s + wait_s, is_empty=True)
            raise _too_often(per_minute, wait_s)
        self._taken[key] = _Taken(taken - 1, now_s + TAKEN_FOR_S)


def _too_often(per_minute: int, wait_s: float) -> TooOften:
    return TooOften(
        Failure(
            "REQUEST_RATE_EXCEEDED",
            "This key may make {limit} requests a minute. Wait as long as Retry-After says.",
            {"limit": per_minute},
        ),
        retry_after_s=max(1, math.ceil(wait_s)),
    )
