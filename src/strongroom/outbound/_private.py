"""The machinery below the client: checked addresses, connections, and one exchange over one of them."""

from __future__ import annotations

import asyncio
import enum
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import h11

from strongroom.outbound.destinations import Destination, address_refusal
from strongroom.outbound.failures import NotSent, failure

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → literal addresses in the order in which to try them. Raises OSError when there are none."""

_BUFFER: Final = 64 << 10
"""Bytes of an answer that are taken from the network ahead of being read, and the most that a head may have."""
_NO_BODY = frozenset({204, 304})
"""Statuses whose answers have no content (RFC 9110 sections 15.3.5 and 15.4.5)."""


class Stage(enum.IntEnum):
    """How far an attempt has come. Before `SENT`, nothing of the request has left."""

    QUEUED = 0
    RESOLVING = 1
    CONNECTING = 2
    SECURING = 3
    SENT = 4


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request on its way."""

    destination: Destination
    stage: Stage = Stage.QUEUED


class TooLargeError(Exception):
    """The answer is over the limit."""


class Connection:
    """A secured connection to one destination. Carries one request at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_BUFFER)
        self._idle_since = 0.0

    async def exchange(
        self, attempt: Attempt, request: h11.Request, body: bytes, *, idle_s: float, answer_bytes: int
    ) -> tuple[h11.Response, bytes]:
        """Send a request and read the whole answer. Afterwards ask `is_reusable`; after a failure `close` it."""
        events = (request, h11.Data(body), h11.EndOfMessage())
        data = b"".join(self._protocol.send(event) or b"" for event in events)
        attempt.stage = Stage.SENT
        async with asyncio.timeout(idle_s):
            await self._wire.write(data)
        response, content = None, bytearray()
        while True:
            event = await self._next_event(idle_s)
            if isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > answer_bytes:
                    raise TooLargeError
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise ConnectionResetError("the other side left, or changed the protocol, without answering")
        if not _says_where_it_ends(request, response):
            raise h11.RemoteProtocolError("the answer doesn't say where it ends, so it may be cut short")
        is_over = self._protocol.our_state is h11.DONE and self._protocol.their_state is h11.DONE
        if is_over and not self._protocol.trailing_data[0]:
            self._protocol.start_next_cycle()
            self._idle_since = asyncio.get_running_loop().time()
        return response, bytes(content)

    def is_reusable(self, within_s: float) -> bool:
        """Whether another request may be trusted to it: idle for at most `within_s` seconds, and the other side has
        neither closed it nor said anything it wasn't asked (which the next request would take for its own answer)."""
        is_idle = self._protocol.our_state is h11.IDLE and self._protocol.their_state is h11.IDLE
        return is_idle and not self._wire.has_news and asyncio.get_running_loop().time() - self._idle_since <= within_s

    def close(self) -> None:
        """Close it at once; nothing that was written is worth waiting for."""
        self._wire.transport.abort()

    async def _next_event(self, idle_s: float) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(idle_s):
                self._protocol.receive_data(await self._wire.read())
        return event


class Wire(asyncio.Protocol):
    """A connection's bytes, in and out.

    It always listens, also while idle, so that a connection that the other side has given up is noticed before the next
    request is trusted to it.
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

    async def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Shake hands, verifying the certificate for `name`. Raises OSError (ssl.SSLError is one) when that fails."""
        if self.has_news:
            raise ConnectionResetError("the other side spoke, or left, before the handshake")
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(self.transport, self, context, server_hostname=name)
        if secured is None:
            raise ConnectionResetError("the connection broke during the handshake")
        self.transport = secured

    async def read(self) -> bytes:
        """What has come, nothing at the end. Raises OSError when the connection broke."""
        while not self._received and not self._ended:
            self._news.clear()
            await self._news.wait()
        if not self._received and self._error is not None:
            raise self._error
        data = bytes(self._received)
        self._received.clear()
        self.transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Hand over `data` and wait until most of it is gone, or something comes back: a server that refuses a large
        request may answer without reading it. When the connection breaks, reading tells."""
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
        self._room.set()

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


async def connect(attempt: Attempt, resolver: Resolver, context: ssl.SSLContext, *, connect_s: float) -> Connection:
    """A secured connection to the attempt's destination: resolved once, every address found checked, and connected to
    one of those and no other.

    Raises NotSent when an address is refused, OSError when nobody takes the connection or the handshake fails.
    """
    host, port = attempt.destination.host, attempt.destination.port
    attempt.stage = Stage.RESOLVING
    addresses = await resolver(host, port)
    for address in addresses:
        refusal = address_refusal(
            address, loopback_ok=attempt.destination.loopback_ok, private_ok=attempt.destination.private_ok
        )
        if refusal:
            raise NotSent(failure("OUTBOUND_ADDRESS_NOT_ALLOWED", host, port, refusal))
    attempt.stage = Stage.CONNECTING
    wire = await _dial(addresses, port, connect_s)
    attempt.stage = Stage.SECURING
    try:
        async with asyncio.timeout(connect_s):
            await wire.secure(context, host)
    except BaseException:
        wire.transport.abort()
        raise
    return Connection(wire)


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """The system's own name resolution."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def tls_context(trust: Path | None, identity: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later with authenticated ciphers, certificate and name verified against `trust` (None: the system's).
    `identity` is our own certificate and its key, for who asks for one.

    Made by hand because `ssl.create_default_context` would write session keys to wherever `SSLKEYLOGFILE` points.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    if trust is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=trust)
    if identity is not None:
        context.load_cert_chain(*identity)
    return context


async def _dial(addresses: Sequence[str], port: int, connect_s: float) -> Wire:
    refused = OSError("the name has no address")
    for address in addresses:
        try:
            async with asyncio.timeout(connect_s):
                _, wire = await asyncio.get_running_loop().create_connection(Wire, address, port)
        except OSError as error:
            refused = error
        else:
            return wire
    raise refused


def _says_where_it_ends(request: h11.Request, response: h11.Response) -> bool:
    """An answer that ends where the connection does (RFC 9112 section 6.3, rule 8) can't be told from one cut short."""
    names = {name for name, _ in response.headers}
    return (
        request.method == b"HEAD"
        or response.status_code in _NO_BODY
        or b"content-length" in names
        or b"transfer-encoding" in names
    )
