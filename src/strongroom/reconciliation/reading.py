"""Reading reports within bounds: how many are in hand at once, in one process.

Reading one takes processor time and memory in proportion to its size, and the process has requests to answer. So only a
few are in hand at a time, of one tenant fewer still (or it could keep the others out), and they are read one after
another. Who comes beyond that is told to come again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from strongroom.kernel.errors import Failure, TooOften
from strongroom.kernel.ids import TenantId
from strongroom.reconciliation.statements import Report, read_report

MAX_AT_ONCE: Final = 4
"""Most reports that one process has in hand, from their first byte until they are taken in."""
MAX_AT_ONCE_BY_TENANT: Final = 2
"""Most of one tenant's among them."""
COME_AGAIN_AFTER_S: Final = 5
"""When somebody who is turned away may try again, in seconds."""


class ReportReader:
    """One process's share of reading."""

    def __init__(self) -> None:
        self._in_hand: Counter[TenantId] = Counter()
        self._turn = asyncio.Lock()

    @contextmanager
    def place(self, tenant: TenantId) -> Iterator[None]:
        """Hold one of the places. Raises errors.TooOften (`REPORTS_AT_ONCE`) when there is none for this tenant."""
        if self._in_hand.total() >= MAX_AT_ONCE or self._in_hand[tenant] >= MAX_AT_ONCE_BY_TENANT:
            raise TooOften(
                Failure(
                    "REPORTS_AT_ONCE",
                    "Other reports are being taken in ({limit} at once are, {tenant} of one tenant's). Send this one "
                    "again in {seconds} seconds; nothing of it was taken in.",
                    {"limit": MAX_AT_ONCE, "tenant": MAX_AT_ONCE_BY_TENANT, "seconds": COME_AGAIN_AFTER_S},
                ),
                retry_after_s=COME_AGAIN_AFTER_S,
            )
        self._in_hand[tenant] += 1
        try:
            yield
        finally:
            self._in_hand[tenant] -= 1
            if not self._in_hand[tenant]:
                del self._in_hand[tenant]

    async def read(self, document: bytes) -> Report:
        """As `read_report`, beside what else the process does, and after what is being read already."""
        async with self._turn:
            return await asyncio.to_thread(read_report, document)
