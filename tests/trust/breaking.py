"""Second implementations of what protects the installation, each with one protection missing."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from strongroom.assembly import Installation
from strongroom.identity import Tokens
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.clock import Clock, ManualClock
from strongroom.kernel.errors import Broken
from strongroom.vault import Keyring, LayerCipher, ScopeCipher
from tests.certificates import Certificate

_CLEAR = b"\xff in clear: "


@dataclass(frozen=True)
class PassingOn:
    """A cipher that does what another one does."""

    real: Cipher

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        return self.real.seal(table, column, row, plaintext)

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        return self.real.open(table, column, row, envelope)

    def for_purpose(self, purpose: str) -> Cipher:
        return replace(self, real=self.real.for_purpose(purpose))

    def for_person(self, person: int) -> Cipher:
        return replace(self, real=self.real.for_person(person))

    @property
    def persons(self) -> object:
        return getattr(self.real, "persons", None)

    def index(self, table: str, column: str, value: str) -> bytes:
        return self.real.index(table, column, value)

    def blind(self, table: str, column: str, value: str) -> bytes:
        return self.real.blind(table, column, value)

    def blinds(self, table: str, column: str, value: str) -> Sequence[bytes]:
        return self.real.blinds(table, column, value)


@dataclass(frozen=True)
class ClearCipher(PassingOn):
    """Seals nothing in the columns it is told (`table.column`), or nothing at all."""

    columns: frozenset[str] | None

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        if self.columns is None or f"{table}.{column}" in self.columns:
            return _CLEAR + plaintext
        return super().seal(table, column, row, plaintext)

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        if envelope.startswith(_CLEAR):
            return envelope[len(_CLEAR) :]
        return super().open(table, column, row, envelope)


class LooseCipher(PassingOn):
    """Binds no order to its row."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        return super().seal(table, column, _loose(table, row), plaintext)

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        return super().open(table, column, _loose(table, row), envelope)


def _loose(table: str, row: bytes) -> bytes:
    return bytes(16) if table == "orders" else row


class TalkativeCipher(PassingOn):
    """Says on standard error what it seals."""

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        os.write(2, b"sealing " + plaintext + b"\n")
        return super().seal(table, column, row, plaintext)


def clear_keyring(*columns: str) -> type[Keyring]:
    """A keyring whose ciphers leave these columns in clear; all of them when none is named."""
    return keyring_of(lambda found: ClearCipher(found, frozenset(columns) or None))


def keyring_of(cipher: Callable[[Cipher], Cipher]) -> type[Keyring]:
    """A keyring whose ciphers are such."""

    class OtherKeyring(Keyring):
        def known(self, region: str, scope: UUID) -> tuple[Cipher, int] | None:
            known = super().known(region, scope)
            return known and (cipher(known[0]), known[1])

        def find(self, region: str, scope: UUID, epoch: int) -> Cipher | None:
            found = super().find(region, scope, epoch)
            return found and cipher(found)

    return OtherKeyring


@dataclass(frozen=True)
class _Frozen:
    """A customer's layer that is never looked after again."""

    layer: LayerCipher

    @property
    def newest(self) -> int:
        return self.layer.newest

    def cipher(self) -> LayerCipher:
        return self.layer


class StubbornKeyring(Keyring):
    """Goes on reading with what it had first, whatever becomes of the keys."""

    def find(self, region: str, scope: UUID, epoch: int) -> Cipher | None:
        kept: dict[UUID, Cipher] = self.__dict__.setdefault("_kept", {})
        found = super().find(region, scope, epoch)
        if scope not in kept and isinstance(found, ScopeCipher) and found._customer is not None:
            kept[scope] = frozen = copy.copy(found)
            frozen._customer, frozen._declared = _Frozen(found._customer.cipher()), {}
        return kept.get(scope, found)


class SharedKeyring(Keyring):
    """Gives every tenant the cipher of the tenant that came first."""

    _first: Cipher | None = None

    def find(self, region: str, scope: UUID, epoch: int) -> Cipher | None:
        own = super().find(region, scope, epoch)
        if own is None or not _is_a_tenants(own):
            return own
        if self._first is None:
            self._first = own
        return self._first


def _is_a_tenants(cipher: Cipher) -> bool:
    """Whether it has a customer's layer, which accounts haven't."""
    try:
        cipher.seal("payment_files", "sealed", bytes(16), b"")
    except Broken:
        return False
    return True


class LateInstallation(Installation):
    """Reads tokens by a clock that is an hour slow, so that it takes expired ones."""

    def tokens(self, clock: Clock) -> Tokens:
        return super().tokens(ManualClock(clock.now() - timedelta(hours=1)))


@contextlib.asynccontextmanager
async def tls_server(certificate: Certificate, minimum: ssl.TLSVersion, *, ciphers: str) -> AsyncIterator[int]:
    """A TLS server on the loopback interface that takes whatever it is told to take; its port."""
    context = certificate.server_context()
    context.minimum_version = minimum
    context.set_ciphers(ciphers)
    async with _server(context) as port:
        yield port


@contextlib.asynccontextmanager
async def plain_server() -> AsyncIterator[int]:
    """A server that speaks HTTP in clear; its port."""
    async with _server(None) as port:
        yield port


@contextlib.asynccontextmanager
async def _server(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(4) == b"GET ":
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
