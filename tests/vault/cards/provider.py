"""A payment provider on this machine, over TLS, that does with requests what a test says and remembers what came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.certificates import Certificate

Answer = Callable[["Received"], Awaitable[bytes]]


@dataclass(frozen=True)
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Provider:
    """What came, and how it answers."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    answer: Answer | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def said(self, request: Received) -> bytes:
        """The answer's bytes; a plain 200 unless the test says otherwise."""
        self.received.append(request)
        return answer(b'{"result":"approved"}') if self.answer is None else await self.answer(request)


def answer(body: bytes, *, status: str = "200 OK", media: str = "application/json", **headers: str) -> bytes:
    """A whole answer; `_` in a header's name stands for `-`."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {media}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def provider(certificate: Certificate) -> AsyncIterator[Provider]:
    """A provider on a free port, while it lasts."""
    made = Provider()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(await made.said(Received(head[0], headers, body)))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate.server_context())
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
