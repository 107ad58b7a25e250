"""The client: one allow list, one set of trusted authorities, one pool of connections."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

import h11

from strongroom.outbound._private import (
    Attempt,
    Connection,
    Resolver,
    Stage,
    TooLargeError,
    connect,
    system_resolver,
    tls_context,
)
from strongroom.outbound.destinations import Destination
from strongroom.outbound.failures import NoAnswer, NotSent, failure

_TARGET = re.compile(r"[!-~]*", re.ASCII)
"""What may stand in a request line: visible ASCII, no blank."""
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_OURS_ALONE = frozenset({"transfer-encoding", "connection", "upgrade", "expect", "te"})
"""Headers that say how a request is carried, which is not the caller's business."""
_KEPT_ALIVE_S: Final = 15.0
"""How long an idle connection is kept for the next request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may cost. Times are in seconds."""

    connect_s: float = 5.0
    """To connect to one address, and again for the TLS handshake."""
    idle_s: float = 15.0
    """Between two pieces of an answer, and to hand over a piece of the request."""
    total_s: float = 30.0
    """From the call to the last byte of the answer, whatever happens in between."""
    answer_bytes: int = 1 << 20
    connections: int = 64
    """In use at once, over all destinations; further requests wait their turn."""


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, whatever its status. Header names are in lower case; repeated headers are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Outbound:
    """Sends requests to the destinations in `allowed`, and nowhere else.

    Certificates are verified against the authorities in the PEM file `trust`, or the system's when it is None.
    `identity` names PEM files of our own certificate and its key, where the other side wants to know us (mutual TLS).
    Belongs to one event loop. Close it, or use it as an asynchronous context manager.
    """

    def __init__(
        self,
        *,
        allowed: Iterable[Destination],
        trust: Path | None = None,
        identity: tuple[Path, Path] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._allowed = {(destination.host, destination.port): destination for destination in allowed}
        self._limits = limits
        self._resolver = resolver
        self._context = tls_context(trust, identity)
        self._turns = asyncio.Semaphore(limits.connections)
        self._idle: dict[Destination, deque[Connection]] = {}
        self._is_closed = False

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send one request to an https URL and read the whole answer. Nothing is ever sent twice.

        Raises NotSent when it is certain that nothing left, NoAnswer in every other case without a whole answer. When
        the calling task is cancelled, what the other side did is as unknown as after NoAnswer.
        """
        destination, parts = self._destination(url)
        request = _request(method, destination, parts, headers or {}, body)
        attempt = Attempt(destination=destination)
        try:
            async with asyncio.timeout(self._limits.total_s), self._turns:
                return await self._exchange(attempt, request, body)
        except NotSent:
            raise
        except Exception as error:
            # Whatever broke, and wherever, the caller needs to know one thing: may bytes have left?
            raise _verdict(attempt, error) from error

    async def aclose(self) -> None:
        """Close every connection that is idle, and those in use as soon as they are done."""
        self._is_closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _destination(self, url: str) -> tuple[Destination, SplitResult]:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 443
        except ValueError as error:
            raise NotSent(failure("OUTBOUND_DESTINATION_NOT_ALLOWED", "", 0, "the address is not a URL")) from error
        destination = self._allowed.get((host, port))
        if parts.scheme != "https":
            raise NotSent(failure("OUTBOUND_DESTINATION_NOT_ALLOWED", host, port, "only https is spoken"))
        if "@" in parts.netloc:
            raise NotSent(failure("OUTBOUND_DESTINATION_NOT_ALLOWED", host, port, "credentials in a URL are not sent"))
        if destination is None:
            raise NotSent(failure("OUTBOUND_DESTINATION_NOT_ALLOWED", host, port, "not on the list of destinations"))
        return destination, parts

    async def _exchange(self, attempt: Attempt, request: h11.Request, body: bytes) -> Answer:
        limits = self._limits
        connection = self._kept(attempt.destination)
        if connection is None:
            connection = await connect(attempt, self._resolver, self._context, connect_s=limits.connect_s)
        try:
            response, content = await connection.exchange(
                attempt, request, body, idle_s=limits.idle_s, answer_bytes=limits.answer_bytes
            )
        except BaseException:
            connection.close()
            raise
        self._keep(attempt.destination, connection)
        return Answer(status=response.status_code, headers=_headers(response), body=content)

    def _kept(self, destination: Destination) -> Connection | None:
        """The connection used last, if it still stands. Those used longer ago are older still."""
        connections = self._idle.get(destination)
        while connections:
            connection = connections.pop()
            if connection.is_reusable(_KEPT_ALIVE_S):
                return connection
            connection.close()
        return None

    def _keep(self, destination: Destination, connection: Connection) -> None:
        if self._is_closed or not connection.is_reusable(_KEPT_ALIVE_S):
            connection.close()
            return
        connections = self._idle.setdefault(destination, deque())
        while connections and not connections[0].is_reusable(_KEPT_ALIVE_S):
            connections.popleft().close()
        connections.append(connection)


def _request(
    method: str, destination: Destination, parts: SplitResult, headers: Mapping[str, str], body: bytes
) -> h11.Request:
    host, port = destination.host, destination.port
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _TARGET.fullmatch(target):
        cause = "the URL's path holds a blank or a character outside ASCII"
        raise NotSent(failure("OUTBOUND_REQUEST_INVALID", host, port, cause))
    name = f"[{host}]" if ":" in host else host
    ours = {
        "host": name if port == 443 else f"{name}:{port}",
        "user-agent": "strongroom",
        "accept-encoding": "identity",
    }
    if body or method not in _WITHOUT_BODY:
        ours["content-length"] = str(len(body))
    given = {header.lower(): value for header, value in headers.items() if header.lower() not in _OURS_ALONE}
    try:
        return h11.Request(method=method, target=target, headers=list((given | ours).items()))
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        cause = "the method or a header holds what may not stand there"
        raise NotSent(failure("OUTBOUND_REQUEST_INVALID", host, port, cause)) from error


def _headers(response: h11.Response) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


_NOT_SENT: Final[Mapping[Stage, tuple[str, str]]] = {
    Stage.QUEUED: ("OUTBOUND_BUSY", "no connection became free"),
    Stage.RESOLVING: ("OUTBOUND_NAME_NOT_RESOLVED", "the name could not be resolved"),
    Stage.CONNECTING: ("OUTBOUND_NOT_CONNECTED", "the connection was not taken"),
    Stage.SECURING: ("OUTBOUND_TLS_FAILED", "no verified TLS connection came about"),
}


def _verdict(attempt: Attempt, error: Exception) -> NotSent | NoAnswer:
    host, port = attempt.destination.host, attempt.destination.port
    if attempt.stage is Stage.SENT:
        if isinstance(error, TooLargeError):
            return NoAnswer(failure("OUTBOUND_ANSWER_TOO_LARGE", host, port, "the answer is larger than is read"))
        if isinstance(error, TimeoutError):
            return NoAnswer(failure("OUTBOUND_ANSWER_LATE", host, port, "no whole answer came in time"))
        return NoAnswer(failure("OUTBOUND_ANSWER_BROKEN", host, port, f"no whole answer came ({_cause(error)})"))
    code, cause = _NOT_SENT[attempt.stage]
    return NotSent(failure(code, host, port, f"{cause} ({_cause(error)})"))


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__
