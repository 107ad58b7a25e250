"""Ranges of network addresses, IPv4 and IPv6, and whose address a request comes from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
NOWHERE: Final = IPv6Address("::")
"""What has no address (RFC 4291 section 2.5.2). No IP list has it unless somebody lists everything."""


def parse_address(text: str) -> Address | None:
    """The address that a text says, or None.

    An IPv4 address written as IPv6 (RFC 4291 section 2.5.5.2) is the IPv4 address. Addresses with a zone (RFC 4007)
    mean something on one machine only, so they are none.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def parse_network(text: str) -> Network | None:
    """The network that a text in CIDR notation (RFC 4632 section 3.1, RFC 4291 section 2.3) says, or None.

    Bits set behind the prefix make it none: the writer meant one address, or another network.
    """
    try:
        return ip_network(text) if "/" in text and "%" not in text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """Addresses of one version from `first` to `last`, both included."""

    version: int
    first: int
    last: int

    @classmethod
    def between(cls, first: Address, last: Address) -> AddressRange:
        """The addresses from one to another. Raises ValueError unless they are of one version and in order."""
        if first.version != last.version:
            raise ValueError("a range has one version of addresses")
        if int(first) > int(last):
            raise ValueError("a range ends where it begins, or after")
        return cls(first.version, int(first), int(last))

    @classmethod
    def of(cls, network: Network) -> AddressRange:
        """A network's addresses."""
        return cls(network.version, int(network.network_address), int(network.broadcast_address))

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """What `str` of a range says. Raises ValueError for anything else."""
        first, _, last = text.partition("-")
        return cls.between(ip_address(first), ip_address(last))

    def __str__(self) -> str:
        make = IPv4Address if self.version == 4 else IPv6Address
        return f"{make(self.first)}-{make(self.last)}"


class Networks:
    """A set of ranges, for asking whether an address is in one of them."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[AddressRange]) -> None:
        merged: list[AddressRange] = []
        for each in sorted(ranges):
            if merged and merged[-1].version == each.version and each.first <= merged[-1].last + 1:
                last = merged.pop()
                merged.append(AddressRange(each.version, last.first, max(last.last, each.last)))
            else:
                merged.append(each)
        self._firsts = [(each.version, each.first) for each in merged]
        self._lasts = [each.last for each in merged]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Networks:
        """The ranges that these texts say, one each."""
        return cls(AddressRange.parse(text) for text in texts)

    def __contains__(self, address: Address) -> bool:
        at = bisect_right(self._firsts, (address.version, int(address))) - 1
        return at >= 0 and self._firsts[at][0] == address.version and int(address) <= self._lasts[at]


def parse_range(text: str) -> AddressRange:
    """A network in CIDR notation, or a single address, as operators write them. Raises ValueError for anything else."""
    network, address = parse_network(text), parse_address(text)
    if network is not None:
        return AddressRange.of(network)
    if address is not None:
        return AddressRange.between(address, address)
    raise ValueError(f"{text} is neither a network, such as 10.0.0.0/8 or fd00::/8, nor an address")
