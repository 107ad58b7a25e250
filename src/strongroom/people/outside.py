"""The outside of the front door: identity providers that accounts name, and the DNS.

Accounts choose their providers themselves, so where a request goes is theirs to say: only to https, only to public
addresses, except what the installation's operator lists, and never for long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from strongroom.kernel.errors import Failure, Refused, Unavailable
from strongroom.outbound import Answer, Destination, Limits, Outbound

LIMITS: Final = Limits(connect_s=3.0, idle_s=5.0, total_s=10.0, answer_bytes=512 * 1024, connections=4)
DNS_S: Final = 5.0
"""How long the DNS is waited for."""
MAX_REMEMBERED: Final = 1_000


class Outside:
    """Asks providers and the DNS. One for each process, which remembers what providers publish.

    `internal` are the providers (`host:port`) that may be in private networks or on this machine; `name_servers` those
    asked (`address:port`) instead of the system's.
    """

    def __init__(
        self, *, internal: Collection[str] = (), trust: Path | None = None, name_servers: Sequence[str] = ()
    ) -> None:
        self._internal = frozenset(internal)
        self._trust = trust
        self._name_servers = name_servers
        self._remembered: dict[object, Any] = {}

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """One request to a provider. Raises as `Outbound.request`, and errors.Refused (`PROVIDER_URL_IS_INVALID`)."""
        destination = self.destination(url)
        async with Outbound(allowed=[destination], trust=self._trust, limits=LIMITS) as outbound:
            return await outbound.request(method, url, headers=headers, body=body)

    def destination(self, url: str) -> Destination:
        """Where a provider's address leads. Raises errors.Refused (`PROVIDER_URL_IS_INVALID`)."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").lower(), parts.port or 443
            if parts.scheme != "https" or parts.username is not None or not url.isascii() or parts.fragment:
                raise ValueError
            is_internal = f"{host}:{port}" in self._internal
            return Destination(host=host, port=port, loopback_ok=is_internal, private_ok=is_internal)
        except ValueError:
            raise Refused(
                Failure("PROVIDER_URL_IS_INVALID", "{url} is not a plain https address.", {"url": url[:200]})
            ) from None

    async def find_txt(self, name: str) -> Sequence[str]:
        """The TXT records of a name (RFC 1035 section 3.3.14), the strings of each joined.

        Raises errors.Unavailable (`DNS_UNAVAILABLE`) when nobody can say.
        """
        resolver = dns.asyncresolver.Resolver(configure=not self._name_servers)
        if self._name_servers:
            places = [server.rpartition(":") for server in self._name_servers]
            resolver.nameservers = [dns.nameserver.Do53Nameserver(host, int(port)) for host, _, port in places]
        try:
            found = await resolver.resolve(name, dns.rdatatype.TXT, lifetime=DNS_S, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError):
            raise Unavailable(
                Failure("DNS_UNAVAILABLE", "The DNS has no answer for {name} right now. Try again.", {"name": name})
            ) from None
        return [b"".join(record.strings).decode("utf-8", "replace") for record in found]

    def remember(self, key: object, make: Callable[[], Any]) -> Any:
        """What this process remembers under a key, made when there is nothing; the oldest is forgotten first."""
        if key not in self._remembered:
            while len(self._remembered) >= MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = make()
        return self._remembered[key]
