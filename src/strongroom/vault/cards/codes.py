"""Security codes: in this process's memory alone, for one authorisation, for minutes.

They are sensitive authentication data, which may not be stored after authorisation, not even encrypted (PCI DSS 4.0.1
requirement 3.3.1). Each is kept in bytes that are overwritten when it is used, superseded, forgotten or over its time.
Python's own short-lived copies, made while a request is read and written, are freed but can't be overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

LIFETIME_S: Final = 900.0
"""15 minutes: long enough for a checkout that follows."""
MAX_KEPT: Final = 10_000
"""More would be held by nobody in good faith; the oldest goes first."""


class SecurityCodes:
    """Codes by tenant and token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back."""
        self._clock = clock
        self._kept: dict[tuple[UUID, str], tuple[bytearray, float]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, tenant: UUID, token: str, code: str) -> None:
        """Keep a code, in place of the token's earlier one."""
        self.drop(tenant, token)
        if len(self._kept) >= MAX_KEPT:
            self.drop(*next(iter(self._kept)))
        self._kept[tenant, token] = (bytearray(code, "ascii"), self._clock() + LIFETIME_S)

    def has(self, tenant: UUID, token: str) -> bool:
        """Whether there is one that may still be used."""
        kept = self._kept.get((tenant, token))
        return kept is not None and self._clock() < kept[1]

    def take(self, tenant: UUID, token: str) -> str | None:
        """The code, which is gone from here afterwards; None when there is none, or its time is over."""
        code = None
        if self.has(tenant, token):
            code = self._kept[tenant, token][0].decode()
        self.drop(tenant, token)
        return code

    def drop(self, tenant: UUID, token: str) -> None:
        """Overwrite and forget the token's code."""
        kept = self._kept.pop((tenant, token), None)
        if kept is not None:
            _wipe(kept[0])

    def drop_expired(self) -> int:
        """Overwrite and forget those whose time is over; how many."""
        now = self._clock()
        over = [place for place, (_, until) in self._kept.items() if until <= now]
        for place in over:
            self.drop(*place)
        return len(over)

    def clear(self) -> None:
        """Overwrite and forget all."""
        for place in list(self._kept):
            self.drop(*place)


def _wipe(code: bytearray) -> None:
    for at in range(len(code)):
        code[at] = 0
