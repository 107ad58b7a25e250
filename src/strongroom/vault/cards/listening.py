"""HTTP/1.1 over TLS, as little of it as the vault needs, with every limit in sight.

Written on h11 because the vault has to know who is at the other end: the name in a client's certificate, which web
servers keep to themselves. A request's bytes are overwritten once it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import h11
import structlog

from strongroom.vault.cards.limits import network_of

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S: Final = 10.0
"""From a request's first byte, or a connection's beginning, to its last."""
IDLE_TIMEOUT_S: Final = 30.0
MAX_HEAD: Final = 16 << 10
MAX_CONNECTIONS: Final = 512
MAX_PER_ADDRESS: Final = 128
"""Of the public door: one address can't keep all others out by holding on to connections."""
STOP_TIMEOUT_S: Final = 40.0
"""How long requests under way may take when the vault is told to stop: longer than a provider may."""
PROCESS_URI: Final = "urn:strongroom:process:"
"""How our own processes are named in their certificates; the name follows."""
_PIECE: Final = 64 << 10
_SUITES: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Header names are in lower case. `peer` is the calling process's name, empty for the public."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytearray = field(repr=False)
    address: str
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer."""

    status: int
    content: bytes = b""
    headers: Sequence[tuple[str, str]] = ()


Handler = Callable[[Request], Awaitable[Response]]


def server_context(chain: Path, key: Path, clients: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later with authenticated ciphers. With `clients`, a PEM file of authorities, a client has to show a
    certificate of one of them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(chain, key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cafile=clients)
    return context


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, on which nobody listens yet. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class Listener:
    """Serves one port. `max_body` says how many bytes a request to a path may have, `per_address` how many connections
    one address may hold."""

    def __init__(self, handler: Handler, max_body: Callable[[str], int], *, per_address: int = MAX_CONNECTIONS) -> None:
        self._handler = handler
        self._per_address = per_address
        self._held: Counter[str] = Counter()
        self._max_body = max_body
        self._open: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._stopping = False

    async def start(self, place: socket.socket, context: ssl.SSLContext) -> None:
        """Listen on a bound socket (`bind`)."""
        self._server = await asyncio.start_server(
            self._connected, sock=place, ssl=context, ssl_handshake_timeout=REQUEST_TIMEOUT_S, limit=_PIECE
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101  only asked after `start`
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more, answer what is under way, and close."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for task in self._open - self._busy:
            task.cancel()
        if self._open:
            _, late = await asyncio.wait(set(self._open), timeout=STOP_TIMEOUT_S)
            for task in late:
                task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  a callback of a server runs in a task of its own
        if self._stopping or len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        address = network_of(str(writer.get_extra_info("peername")[0]))
        if self._held[address] >= self._per_address:
            writer.transport.abort()
            return
        self._open.add(task)
        self._held[address] += 1
        try:
            await _Conversation(self._handler, self._max_body, reader, writer, _marker(self._busy, task)).run()
        except (OSError, TimeoutError, asyncio.CancelledError, h11.RemoteProtocolError):
            # Whoever was there has left, was too slow, or made no sense: nothing is owed to them, and what they haven't
            # read is not kept for them.
            writer.transport.abort()
        except Exception as error:
            log.warning("cards.connection_failed", error=type(error).__name__)
        finally:
            self._open.discard(task)
            self._busy.discard(task)
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]
            writer.close()


def _marker(busy: set[asyncio.Task[None]], task: asyncio.Task[None]) -> Callable[[bool], None]:
    """Marks a connection's task as busy with a request, or not."""

    def mark(is_busy: bool) -> None:  # noqa: FBT001  says which of two states
        if is_busy:
            busy.add(task)
        else:
            busy.discard(task)

    return mark


class _Conversation:
    """One connection, one request after the other."""

    def __init__(
        self,
        handler: Handler,
        max_body: Callable[[str], int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        mark_busy: Callable[[bool], None],
    ) -> None:
        self._handler = handler
        self._max_body = max_body
        self._reader = reader
        self._writer = writer
        self._mark_busy = mark_busy
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._address = str(writer.get_extra_info("peername")[0])
        self._peer = _process_of(writer.get_extra_info("peercert"))

    async def run(self) -> None:
        """Until either side has enough."""
        while True:
            try:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    head = await self._next_event()
                if not isinstance(head, h11.Request):
                    return
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    body = await self._body(self._max_body(head.target.decode("latin-1")))
            except h11.RemoteProtocolError as error:
                await self._send(Response(status=error.error_status_hint), is_last=True)
                return
            if body is None:
                await self._send(Response(status=413), is_last=True)
                return
            self._mark_busy(True)  # noqa: FBT003  the state itself
            try:
                await self._answer(head, body)
            finally:
                body[:] = bytes(len(body))
                self._mark_busy(False)  # noqa: FBT003  the state itself
            if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    async def _answer(self, head: h11.Request, body: bytearray) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        request = Request(
            method=head.method.decode("latin-1"),
            path=head.target.decode("latin-1").partition("?")[0],
            headers=headers,
            body=body,
            address=self._address,
            peer=self._peer,
        )
        await self._send(await self._handler(request))

    async def _body(self, limit: int) -> bytearray | None:
        """The whole body; None when it is larger than it may be."""
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    return None
            elif isinstance(event, h11.EndOfMessage):
                return body
            else:
                raise ConnectionResetError("the client left in the middle of a request")

    async def _next_event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            if self._protocol.they_are_waiting_for_100_continue:
                self._writer.write(self._told(h11.InformationalResponse(status_code=100, headers=[])))
            self._protocol.receive_data(await self._reader.read(_PIECE))
        return event

    async def _send(self, response: Response, *, is_last: bool = False) -> None:
        headers = [
            ("content-length", str(len(response.content))),
            ("cache-control", "no-store"),
            ("strict-transport-security", "max-age=63072000; includeSubDomains"),
            ("x-content-type-options", "nosniff"),
            *response.headers,
        ]
        if is_last:
            headers.append(("connection", "close"))
        events: list[h11.Event] = [
            h11.Response(status_code=response.status, headers=headers),
            h11.Data(data=response.content),
            h11.EndOfMessage(),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # what was asked made no sense, so no answer can
            for event in events:
                self._writer.write(self._told(event))
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            await self._writer.drain()

    def _told(self, event: h11.Event) -> bytes:
        return bytes(self._protocol.send(event) or b"")


def _process_of(certificate: Mapping[str, object] | None) -> str:
    """The name of the process whose (verified) certificate this is; empty when there is none or it names none."""
    names = (certificate or {}).get("subjectAltName", ())
    if isinstance(names, tuple):
        for kind, name in names:
            if kind == "URI" and name.startswith(PROCESS_URI):
                return str(name.removeprefix(PROCESS_URI))
    return ""
