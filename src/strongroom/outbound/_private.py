"""The machinery below the client: dialling checked addresses, and knowing whether a byte of a request has left."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import httpcore

from strongroom.outbound.destinations import Destination, address_refusal
from strongroom.outbound.failures import NotSent, failure

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → literal addresses in the order in which to try them. Raises OSError when there are none."""


_BUFFER: Final = 64 << 10
"""Bytes of an answer that are taken from the network ahead of being read."""


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

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the library's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A stream to the first address that takes the connection.

        Raises NotSent when an address is refused, OSError when nobody takes the connection in time.
        """
        attempt = CURRENT.get()
        attempt.stage = Stage.RESOLVING
        addresses = await self._resolver(host, port)
        for address in addresses:
            refusal = address_refusal(address, loopback_ok=attempt.destination.loopback_ok)
            if refusal:
                raise NotSent(failure("OUTBOUND_ADDRESS_NOT_ALLOWED", host, port, refusal))
        attempt.stage = Stage.CONNECTING
        refused = OSError("the name has no address")
        for address in addresses:
            try:
                return await _connect(address, port, timeout)
            except OSError as error:
                refused = error
        raise refused


class WatchedStream(httpcore.AsyncNetworkStream):
    """A connection that notes, before it writes, that the current attempt's bytes may be leaving.

    The pool writes requests only; the TLS handshake happens inside `start_tls` and doesn't pass through `write`.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  as above
        """Up to `max_bytes`, none at the end."""
        with _as(httpcore.ReadTimeout, httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._wire.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  as above
        """Write all of `buffer`."""
        CURRENT.get().stage = Stage.SENT
        with _as(httpcore.WriteTimeout, httpcore.WriteError):
            async with asyncio.timeout(timeout):
                await self._wire.write(buffer)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  as above
    ) -> httpcore.AsyncNetworkStream:
        """The same connection, secured, the other side's certificate verified for `server_hostname`."""
        CURRENT.get().stage = Stage.SECURING
        try:
            async with asyncio.timeout(timeout):
                await self._wire.secure(ssl_context, server_hostname)
        except BaseException:
            self._wire.transport.abort()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """What the pool asks: `is_readable`, which on an idle connection means that it can't be used any more, and
        whatever the transport knows."""
        return self._wire.has_news if info == "is_readable" else self._wire.transport.get_extra_info(info)

    async def aclose(self) -> None:
        """Close it at once; nothing that was written is worth waiting for."""
        self._wire.transport.abort()


class Wire(asyncio.Protocol):
    """A connection's bytes, in and out.

    It always listens, also while idle, so that a connection that the other side has given up is noticed before the next
    request is trusted to it. (The library's own streams listen only when asked, and miss a TLS farewell that came in
    one piece with the last answer.)
    """

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_news(self) -> bool:
        """Whether something has come that nobody has read, if only the end."""
        return bool(self._received) or self._ended or self.transport.is_closing()

    async def secure(self, context: ssl.SSLContext, name: str | None) -> None:
        """Shake hands. Raises OSError (ssl.SSLError is one) when that fails."""
        if self.has_news:
            raise ConnectionResetError("the other side spoke, or left, before the handshake")
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(self.transport, self, context, server_hostname=name)
        if secured is None:
            raise ConnectionResetError("the connection broke during the handshake")
        self.transport = secured

    async def read(self, max_bytes: int) -> bytes:
        """Up to `max_bytes`, none at the end. Raises OSError when the connection broke."""
        while not self._received and not self._ended:
            self._news.clear()
            await self._news.wait()
        if not self._received and self._error is not None:
            raise self._error
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        if len(self._received) < _BUFFER:
            self.transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Hand over `data` and wait until most of it is gone. Raises OSError when the connection broke."""
        if self._ended or self.transport.is_closing():
            raise self._error or ConnectionResetError("the other side closed the connection")
        self.transport.write(data)
        await self._room.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, in clear as yet."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        self._received += data
        if len(self._received) >= _BUFFER:
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        """It is over; `error` is None when the end was an orderly one."""
        self._ended = True
        self._error = self._error or error
        self._news.set()
        self._room.set()

    def pause_writing(self) -> None:
        """Too much is waiting to go out."""
        self._room.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self._room.set()


async def _connect(address: str, port: int, timeout: float | None) -> WatchedStream:  # noqa: ASYNC109  as above
    async with asyncio.timeout(timeout):
        _, wire = await asyncio.get_running_loop().create_connection(Wire, address, port)
    return WatchedStream(wire)


@contextlib.contextmanager
def _as(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Failures of the operating system in the library's words."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error


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
