"""Bringing one's own key: wrapped under a public key of ours, so that it travels in the open.

An account asks for an import: we make an RSA key pair of 4096 bits and give out the public half and a token. Whoever
has the key wraps it, in one of two ways that security modules and clouds speak, and sends it with the token:

* `RSA_AES_KEY_WRAP_SHA_256` (CKM_RSA_AES_KEY_WRAP; PKCS #11 v2.40 mechanisms, section 2.1.21): a temporary AES-256 key
  under RSA-OAEP (RFC 8017 section 7.1) with SHA-256 and MGF1-SHA-256, 512 bytes, then the key under that one by AES key
  wrap with padding (RFC 5649), 40 bytes;
* `RSAES_OAEP_SHA_256`: the key itself under RSA-OAEP, 512 bytes.

An import lives for a day and takes one key. Whatever is wrong with a wrapped key gets one and the same answer, after
the same work, and there are five attempts: so nobody learns anything about what was sent from how it is refused
(RFC 8017 section 7.1.2, note).

The private half waits in a file, encrypted under a key of its own (AES-256-GCM) that the holder wraps. It is destroyed
with the import; a token that was used, or is too old, is remembered for a while to say so.
"""

from __future__ import annotations

import asyncio
import enum
import os
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Broken, Conflict, Failure, Invalid, NotFound
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import _files
from strongroom.vault.holders.contract import KEY_BYTES, Holder
from strongroom.vault.holders.file import ROOT
from strongroom.vault.holders.root import NONCE_BYTES

RSA_BITS: Final = 4096
LIFETIME: Final = timedelta(hours=24)
REMEMBERED: Final = timedelta(days=7)
"""For how long after its end an import can still say how it ended."""
MAX_ATTEMPTS: Final = 5
MAX_OPEN: Final = 20
"""Imports of one owner that are under way at once."""
_RSA_BYTES: Final = RSA_BITS // 8
_WRAPPED_BYTES: Final = KEY_BYTES + 8
"""A key of 32 bytes by AES key wrap with padding (RFC 5649 section 3)."""
_TOKEN: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_OAEP: Final = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)


class WrappingAlgorithm(enum.StrEnum):
    """How a key is wrapped for an import, by the names that clouds use."""

    RSA_AES_KEY_WRAP_SHA_256 = "RSA_AES_KEY_WRAP_SHA_256"
    RSAES_OAEP_SHA_256 = "RSAES_OAEP_SHA_256"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyImport:
    """An import under way."""

    token: str
    public_key: str
    """SubjectPublicKeyInfo in PEM (RFC 7468 section 13)."""
    expires_at: datetime


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An import's file. Without `sealed` it has ended."""

    owner: UUID
    expires_at: datetime
    attempts: int = 0
    used: bool = False
    wrapped: bytes = b""
    nonce: bytes = b""
    sealed: bytes = b""


class Imports:
    """Imports of keys, in the folder `imports` of the keys' folder; any number of processes share it."""

    def __init__(self, folder: Path, holder: Holder, clock: Clock) -> None:
        """`holder` keeps what waits, under its key `root`."""
        self._folder = folder / "imports"
        self._holder = holder
        self._clock = clock

    async def begin(self, owner: UUID) -> KeyImport:
        """Make a key pair for an owner (a tenant, or an account). Takes about a second of CPU, in a thread.

        Raises errors.Conflict (`TOO_MANY_IMPORTS`).
        """
        await asyncio.to_thread(self._make_room, owner)
        private = await asyncio.to_thread(rsa.generate_private_key, public_exponent=65537, key_size=RSA_BITS)
        token = secrets.token_hex(16)
        key, nonce = Secret(os.urandom(KEY_BYTES)), os.urandom(NONCE_BYTES)
        der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        record = _Record(
            owner=owner,
            expires_at=self._clock.now() + LIFETIME,
            wrapped=await self._holder.wrap(ROOT, key, _context(owner, token)),
            nonce=nonce,
            sealed=AESGCM(key.reveal()).encrypt(nonce, der, _context(owner, token)),
        )
        await asyncio.to_thread(self._write, token, record)
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return KeyImport(token=token, public_key=public.decode(), expires_at=record.expires_at)

    async def finish(self, owner: UUID, token: str, algorithm: WrappingAlgorithm, wrapped: bytes) -> Secret[bytes]:
        """The key that was brought, of 32 bytes. Ends the import.

        Raises errors.NotFound (`IMPORT_NOT_FOUND`) for a token that isn't the owner's, errors.Conflict (`IMPORT_USED`,
        `IMPORT_EXPIRED`, `IMPORT_ATTEMPTS_USED_UP`), and errors.Invalid (`WRAPPED_KEY_INVALID`) for whatever is wrong
        with the wrapped key.
        """
        record = await asyncio.to_thread(self._attempt, owner, token)
        private = await self._private(owner, token, record)
        key = await asyncio.to_thread(_unwrap, private, algorithm, wrapped)
        if key is None:
            raise Invalid(
                Failure(
                    "WRAPPED_KEY_INVALID",
                    "The wrapped key can't be used. It has to be an AES key of 256 bits, wrapped by {algorithm} under "
                    "the public key of this import, and whole.",
                    {"algorithm": algorithm.value},
                )
            )
        await asyncio.to_thread(self._use, owner, token)
        return key

    def _make_room(self, owner: UUID) -> None:
        """Forget what ended long ago, shred what is too old."""
        self._folder.mkdir(exist_ok=True, mode=0o700, parents=True)
        now, open_ones = self._clock.now(), 0
        with _files.locked(self._folder.parent):
            for path in self._folder.glob("[0-9a-f]*"):
                try:
                    record = self._read(path)
                except Broken:
                    _files.shred(path)  # nothing is lost: whoever wanted it begins another one
                    continue
                if record.expires_at + REMEMBERED <= now:
                    _files.shred(path)
                elif record.sealed and record.expires_at <= now:
                    self._end(path, record)
                elif record.sealed and record.owner == owner:
                    open_ones += 1
        if open_ones >= MAX_OPEN:
            raise Conflict(
                Failure(
                    "TOO_MANY_IMPORTS",
                    "{count} imports are under way. Use one of them, or wait until they end.",
                    {"count": open_ones},
                )
            )

    def _attempt(self, owner: UUID, token: str) -> _Record:
        """Count an attempt, before anything is known of how it goes."""
        if not _TOKEN.fullmatch(token):
            raise _not_found()
        path = self._folder / token
        if not path.exists():
            raise _not_found()
        with _files.locked(self._folder.parent):
            record = self._read(path)
            if record.owner != owner:
                raise _not_found()
            if record.used:
                raise Conflict(Failure("IMPORT_USED", "This import has taken a key already. Begin another one."))
            if record.expires_at <= self._clock.now():
                self._end(path, record)
                raise _expired()
            if record.attempts >= MAX_ATTEMPTS:
                self._end(path, record)
                raise Conflict(
                    Failure(
                        "IMPORT_ATTEMPTS_USED_UP",
                        "This import was tried {most} times, which is all. Begin another one.",
                        {"most": MAX_ATTEMPTS},
                    )
                )
            _files.put(path, _encoded(msgspec.structs.replace(record, attempts=record.attempts + 1)))
            return record

    async def _private(self, owner: UUID, token: str, record: _Record) -> rsa.RSAPrivateKey:
        """The private half. Without it, as when the root key that it waits under was ended, the import is over."""
        try:
            key = await self._holder.unwrap(ROOT, record.wrapped, _context(owner, token))
            der = AESGCM(key.reveal()).decrypt(record.nonce, record.sealed, _context(owner, token))
            # As `begin` sealed it, to the bit: whether its factors are prime needn't be tried again (0.3 s of CPU).
            private = await asyncio.to_thread(load_der_private_key, der, None, unsafe_skip_rsa_key_validation=True)
        except (Broken, InvalidTag):
            raise _expired() from None
        assert isinstance(private, rsa.RSAPrivateKey)  # noqa: S101  it is what `begin` made
        return private

    def _use(self, owner: UUID, token: str) -> None:
        """End an import that took its key; of several at once, one does."""
        path = self._folder / token
        with _files.locked(self._folder.parent):
            record = self._read(path)
            if record.used or record.owner != owner:
                raise Conflict(Failure("IMPORT_USED", "This import has taken a key already. Begin another one."))
            self._end(path, msgspec.structs.replace(record, used=True))

    def _end(self, path: Path, record: _Record) -> None:
        ended = msgspec.structs.replace(record, wrapped=b"", nonce=b"", sealed=b"")
        _files.put(path, _encoded(ended), shred_old=True)

    def _write(self, token: str, record: _Record) -> None:
        with _files.locked(self._folder.parent):
            _files.put(self._folder / token, _encoded(record))

    def _read(self, path: Path) -> _Record:
        content, _ = _files.read(path)
        try:
            return msgspec.json.decode(content, type=_Record)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _files.broken(path, "it can't be read") from None


def _unwrap(private: rsa.RSAPrivateKey, algorithm: WrappingAlgorithm, wrapped: bytes) -> Secret[bytes] | None:
    """The key, or None for whatever is wrong; the same work is done in any case."""
    head, tail = wrapped[:_RSA_BYTES], wrapped[_RSA_BYTES:]
    opened = _open_oaep(private, head)
    is_good = len(opened) == KEY_BYTES
    temporary = opened if is_good else os.urandom(KEY_BYTES)
    if algorithm is WrappingAlgorithm.RSAES_OAEP_SHA_256:
        return Secret(temporary) if is_good and not tail else None
    try:
        key = aes_key_unwrap_with_padding(temporary, tail if len(tail) == _WRAPPED_BYTES else bytes(_WRAPPED_BYTES))
    except (InvalidUnwrap, ValueError):
        return None
    return Secret(key) if is_good and len(tail) == _WRAPPED_BYTES and len(key) == KEY_BYTES else None


def _open_oaep(private: rsa.RSAPrivateKey, sealed: bytes) -> bytes:
    try:
        return private.decrypt(sealed.rjust(_RSA_BYTES, b"\0"), _OAEP)
    except ValueError:
        return b""


def _encoded(record: _Record) -> bytes:
    return msgspec.json.encode(record)


def _context(owner: UUID, token: str) -> bytes:
    return b"strongroom key import\0" + owner.bytes + token.encode()


def _not_found() -> NotFound:
    return NotFound(Failure("IMPORT_NOT_FOUND", "There is no such import."))


def _expired() -> Conflict:
    return Conflict(Failure("IMPORT_EXPIRED", "This import is older than a day. Begin another one."))
