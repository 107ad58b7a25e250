"""Where a request may go: names on an allow list, and the addresses behind them.

A name on the list is not enough, because whoever answers for it in the DNS could point it at this machine's own
network. So every address behind a name is checked, and the connection is made to an address that was checked.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only part of the IPv6 space given out for public use (RFC 4291 section 2.4)."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as IPv6-only networks see them (RFC 6052 section 2.1)."""
_PRIVATE: Final = (
    ipaddress.IPv4Network("10.0.0.0/8"),
    ipaddress.IPv4Network("172.16.0.0/12"),
    ipaddress.IPv4Network("192.168.0.0/16"),
    ipaddress.IPv6Network("fc00::/7"),
)
"""Addresses of private networks (RFC 1918 section 3, RFC 4193 section 3.1)."""
_METADATA: Final = ipaddress.IPv6Network("fd00:ec2::/32")
"""Where a cloud keeps its metadata service, though the block is a private network's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """One entry of an allow list.

    `host` is a lower-case DNS name or a literal address, matched exactly; there are no wildcards. `loopback_ok` lets it
    be on this very machine, which is right for our own simulator, for tests, and for what the operator runs beside us.
    `private_ok` lets it be in a private network, which only the operator may say, never a tenant.
    """

    host: str
    port: int = 443
    loopback_ok: bool = False
    private_ok: bool = False

    def __post_init__(self) -> None:
        if not self.host or self.host != self.host.lower() or set(self.host) & set("/@[] "):
            raise ValueError(f"a destination's host is a lower-case name or a bare address, not {self.host!r}")


def address_refusal(address: str, *, loopback_ok: bool = False, private_ok: bool = False) -> str | None:
    """Why a connection to the literal `address` is refused, for people; None when it is allowed.

    Allowed are public unicast addresses, this machine's own when `loopback_ok`, and those of private networks when
    `private_ok`. Otherwise private, link-local (which is where
    clouds keep their metadata services), shared, reserved and multicast addresses are refused, also when they are
    written into an IPv6 address (mapped, 6to4, NAT64).
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_loopback:
        return None if loopback_ok else f"{address} is this machine itself"
    if private_ok and _is_private(found):
        return None
    return None if _is_public(found) else f"{address} is not a public address"


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in _PRIVATE) and address not in _METADATA


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(address.packed[-4:]))
    inner = address.sixtofour
    return address in _GLOBAL_UNICAST and address.is_global and (inner is None or _is_public(inner))
