"""The machinery below the client: dialling checked addresses, and knowing whether a byte of a request has left."""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore

from strongroom.outbound.destinations import Destination, address_refusal
from strongroom.outbound.failures import NotSent, failure

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → literal addresses in the order in which to try them. Raises OSError when there are none."""


class Stage(enum.IntEnum):
    """How far an attempt has come. Up to `SECURING`, nothing of the request has left."""

    QUEUED = 0
    RESOLVING = 1
    CONNECTING = 2
    SECURING = 3
    SENT = 4


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request on its way. The task that makes it carries it as `CURRENT`."""

    destination: Destination
    stage: Stage = Stage.QUEUED


CURRENT: ContextVar[Attempt] = ContextVar("strongroom.outbound.attempt")
"""The attempt that the running task makes. A pool hands a connection from request to request, so a connection can't
know whose bytes it carries; the task that writes them does."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves once, checks every address found, and connects to one of those and no other."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A stream to the first address that takes the connection. Raises NotSent when an address is refused."""
        attempt = CURRENT.get()
        attempt.stage = Stage.RESOLVING
        addresses = await self._resolver(host, port)
        for address in addresses:
            refusal = address_refusal(address, loopback_ok=attempt.destination.loopback_ok)
            if refusal:
                raise NotSent(failure("OUTBOUND_ADDRESS_NOT_ALLOWED", host, port, refusal))
        attempt.stage = Stage.CONNECTING
        refused: Exception = httpcore.ConnectError("the name has no address")
        for address in addresses:
            try:
                return WatchedStream(await self._network.connect_tcp(address, port, timeout, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refused = error
        raise refused


class WatchedStream(httpcore.AsyncNetworkStream):
    """A stream that notes, before it writes, that the current attempt's bytes may be leaving.

    The library writes requests only; the TLS handshake happens inside `start_tls` and doesn't pass here.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  as above
        """Up to `max_bytes`."""
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  as above
        """Write all of `buffer`."""
        CURRENT.get().stage = Stage.SENT
        await self._inner.write(buffer, timeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as above
    ) -> httpcore.AsyncNetworkStream:
        """The same stream, secured, the other side's certificate verified for `server_hostname`."""
        CURRENT.get().stage = Stage.SECURING
        return WatchedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What the library wants to know of the connection below."""
        return self._inner.get_extra_info(info)

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The system's own name resolution."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def tls_context(trust: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later with authenticated ciphers, certificate and name verified against `trust` (None: the system's).

    Made by hand because `ssl.create_default_context` would write session keys to wherever `SSLKEYLOGFILE` points.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    if trust is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=trust)
    return context
