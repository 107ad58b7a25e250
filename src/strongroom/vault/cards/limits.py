"""Limits on how often: what keeps a vault's door from being used to try out stolen numbers.

Buckets in this process's memory (there is one process): each key may do `rate` things a second, and `burst` at once.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Hashable
from typing import Final

from strongroom.kernel.errors import Failure, TooOften

MAX_KNOWN: Final = 100_000
"""Most keys that are remembered; beyond, those that rested longest are let go."""


class Bucket:
    """One limit, over many keys."""

    def __init__(self, code: str, *, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`code` is told to who is over the limit; `rate` is a second's worth."""
        self._code = code
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._known: dict[Hashable, tuple[float, float]] = {}

    def spend(self, key: Hashable, amount: float = 1.0) -> None:
        """Use up some of what a key may do. Raises errors.TooOften when there isn't enough."""
        left = self._left(key)
        if left < amount:
            raise TooOften(
                Failure(
                    self._code,
                    "That is too often: at most {burst} at once and {rate} a second. Wait, then try again.",
                    {"burst": int(self._burst), "rate": round(self._rate, 3)},
                )
            )
        self._keep(key, left - amount)

    def require(self, key: Hashable) -> None:
        """Go on only if there is something left; uses nothing. Raises errors.TooOften."""
        self.spend(key, 0.0 if self._left(key) >= 1.0 else 1.0)

    def _left(self, key: Hashable) -> float:
        left, at = self._known.get(key, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at) * self._rate)

    def _keep(self, key: Hashable, left: float) -> None:
        self._known.pop(key, None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = (left, self._clock())


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 of an IPv6 one, of which a household has a whole."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
