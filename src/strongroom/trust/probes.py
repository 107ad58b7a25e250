"""Handshakes by hand: what a server answers to a ClientHello that no library of today would send.

A probe's greeting offers one version and a few suites; the server's first record says whether it goes along. Layout
after RFC 5246 sections 6.2.1 and 7.4.1 and, for TLS 1.3, RFC 8446 section 4.1.
"""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Final

TLS_1_0: Final = 0x0301
TLS_1_1: Final = 0x0302
TLS_1_2: Final = 0x0303
TIMEOUT_S: Final = 5.0

MODERN: Final = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8)
"""ECDHE with AES-GCM or ChaCha20-Poly1305."""
OLD: Final = (0xC009, 0xC013, 0xC00A, 0xC014, 0x002F, 0x0035, 0x0033, 0x0039, 0x000A)
"""What a client of the time of TLS 1.0 would offer."""
WEAK: Final = {
    "no encryption": (0x0001, 0x0002, 0x003B, 0xC006, 0xC010),
    "nobody authenticated": (0x0018, 0x001B, 0x0034, 0x003A, 0x006C, 0x006D, 0x00A6, 0x00A7, 0xC018, 0xC019),
    "export keys": (0x0003, 0x0006, 0x0008, 0x0014, 0x0017, 0x0019),
    "RC4": (0x0004, 0x0005, 0xC007, 0xC011),
    "DES and 3DES": (0x0009, 0x000A, 0x0015, 0x0016, 0xC008, 0xC012),
    "no forward secrecy": (0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D),
    "CBC": (0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC024, 0xC027, 0xC028),
}
"""Suites that a server of today refuses, by what is wrong with them (RFC 9325 section 4.1)."""

_HANDSHAKE: Final = 22
_SERVER_HELLO: Final = 2
_GROUPS: Final = (29, 23, 24)  # x25519, secp256r1, secp384r1
_SIGNATURES: Final = (0x0403, 0x0503, 0x0807, 0x0804, 0x0805, 0x0401, 0x0501, 0x0203, 0x0201)


async def accepts(host: str, port: int, version: int, suites: tuple[int, ...]) -> bool:
    """Whether the server goes along with this version (TLS 1.0 to 1.2) and one of these suites.

    Raises OSError when nobody takes the connection.
    """
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(client_hello(host, version, suites))
        await writer.drain()
        async with asyncio.timeout(TIMEOUT_S):
            answer = await reader.readexactly(11)
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
        return False
    finally:
        writer.close()
    content, _, _, kind = struct.unpack(">BHHB", answer[:6])
    (chosen,) = struct.unpack(">H", answer[9:11])
    return bool(content == _HANDSHAKE and kind == _SERVER_HELLO and chosen == version)


def client_hello(host: str, version: int, suites: tuple[int, ...]) -> bytes:
    """A whole record with a ClientHello for `host`."""
    name = host.encode()
    extensions = b"".join(
        _extension(kind, content)
        for kind, content in (
            (0, _sized(b"\0" + _sized(name))),
            (10, _sized(_words(_GROUPS))),
            (11, b"\x01\x00"),
            (13, _sized(_words(_SIGNATURES))),
        )
    )
    body = (
        struct.pack(">H", version) + os.urandom(32) + b"\0" + _sized(_words(suites)) + b"\x01\x00" + _sized(extensions)
    )
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return struct.pack(">BHH", _HANDSHAKE, TLS_1_0, len(message)) + message


async def says_to_plain_http(host: str, port: int) -> bytes:
    """What a port answers to HTTP without TLS: nothing, or an alert, when it speaks TLS only."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        async with asyncio.timeout(TIMEOUT_S):
            return await reader.read(4096)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def _extension(kind: int, content: bytes) -> bytes:
    return struct.pack(">HH", kind, len(content)) + content


def _sized(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def _words(values: tuple[int, ...]) -> bytes:
    return struct.pack(f">{len(values)}H", *values)
