"""Where a request comes from: the peer, or behind trusted proxies whoever they say it was.

`X-Forwarded-For` is what anybody likes to write, but for what trusted proxies append to it. So it is read from the
right, past trusted proxies only; the first address that isn't one of them is the source. Without trusted proxies the
header means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from strongroom.kernel.networks import NOWHERE, Address, Networks, parse_address, parse_range

MAX_HOPS: Final = 32
"""So many entries of the header are looked at."""


class SourceReader:
    """Tells where requests come from. `trusted` are networks in CIDR notation."""

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = Networks(map(parse_range, trusted)) if trusted else None

    def read(self, client: Sequence[Any] | None, headers: Iterable[tuple[bytes, bytes]]) -> Address:
        """The source of a request, from the peer (host and port) and all headers as they came."""
        peer = (_parse(str(client[0])) if client else None) or NOWHERE
        if self._trusted is None or peer not in self._trusted:
            return peer
        said = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
        entries = [entry.strip() for entry in said.split(",") if entry.strip()]
        for entry in entries[: -MAX_HOPS - 1 : -1]:
            address = _parse(_without_port(entry))
            if address is None:
                return NOWHERE  # who was before isn't known, and the proxy isn't who asks
            if address not in self._trusted:
                return address
            peer = address
        return peer


def _without_port(entry: str) -> str:
    """Some proxies add the port: 192.0.2.1:443 and [2001:db8::1]:443 (RFC 7239 section 6 writes them so)."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.partition(":")
    return host if colon and ":" not in port else entry


@lru_cache(maxsize=16_384)
def _parse(text: str) -> Address | None:
    return parse_address(text)
