"""Envelopes: sealed fields.

Layout, version 1: one byte `0x01`; the data key's version, 4 bytes big-endian; a random 96-bit nonce; AES-256-GCM
ciphertext with its 128-bit tag (NIST SP 800-38D). Associated data: scope, table, column, row and the header, so that an
envelope opens nowhere but where it was put. Random nonces keep below the standard's bound (section 8.3) while a data
key seals fewer than 2^32 fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from strongroom.kernel.errors import Broken, Failure
from strongroom.kernel.secret import Secret

FORMAT: Final = 1
HEADER_BYTES: Final = 5
NONCE_BYTES: Final = 12
INDEX_BYTES: Final = 16


class ScopeCipher:
    """Seals with the newest data key of a scope, opens with any; implements `kernel.cipher.Cipher`."""

    def __init__(self, scope: UUID, seal_keys: Mapping[int, Secret[bytes]], index_key: Secret[bytes]) -> None:
        self._scope = scope
        self._ciphers = {version: AESGCM(key.reveal()) for version, key in seal_keys.items()}
        newest = max(seal_keys)
        self._newest = self._ciphers[newest]
        self._header = bytes([FORMAT]) + newest.to_bytes(4, "big")
        self._index_key = index_key
        self._columns: dict[tuple[str, str], HMAC] = {}
        self._contexts: dict[tuple[str, str], bytes] = {}

    def seal(self, table: str, column: str, row: bytes, plaintext: bytes) -> bytes:
        """See `kernel.cipher.Cipher.seal`."""
        nonce = os.urandom(NONCE_BYTES)
        header = self._header
        return header + nonce + self._newest.encrypt(nonce, plaintext, self._context(table, column) + row + header)

    def open(self, table: str, column: str, row: bytes, envelope: bytes) -> bytes:
        """See `kernel.cipher.Cipher.open`."""
        header = bytes(envelope[:HEADER_BYTES])
        cipher = self._ciphers.get(int.from_bytes(header[1:], "big"))
        if len(header) < HEADER_BYTES or header[0] != FORMAT or cipher is None:
            raise _broken(table, column)
        nonce = envelope[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
        try:
            return cipher.decrypt(
                nonce, envelope[HEADER_BYTES + NONCE_BYTES :], self._context(table, column) + row + header
            )
        except (InvalidTag, ValueError):
            raise _broken(table, column) from None

    def index(self, table: str, column: str, value: str) -> bytes:
        """See `kernel.cipher.Cipher.index`: HMAC-SHA-256 (RFC 2104) under a key of the column, first 16 bytes."""
        keyed = self._columns.get((table, column))
        if keyed is None:
            key = _mac(HMAC(self._index_key.reveal(), SHA256()), f"{table}\0{column}".encode())
            keyed = self._columns[table, column] = HMAC(key, SHA256())
        return _mac(keyed, value.encode())[:INDEX_BYTES]

    def _context(self, table: str, column: str) -> bytes:
        context = self._contexts.get((table, column))
        if context is None:
            context = b"strongroom envelope\0" + self._scope.bytes + f"{table}\0{column}\0".encode()
            self._contexts[table, column] = context
        return context


def _mac(keyed: HMAC, value: bytes) -> bytes:
    """HMAC (RFC 2104) of a value; the copy saves setting the key up again, which costs more than the hash."""
    mac = keyed.copy()
    mac.update(value)
    return mac.finalize()


def _broken(table: str, column: str) -> Broken:
    return Broken(
        Failure(
            "ENVELOPE_BROKEN",
            "A sealed field ({table}.{column}) does not open where it stands: it was altered, or it belongs elsewhere.",
            {"table": table, "column": column},
        )
    )
