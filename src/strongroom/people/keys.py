"""The keys of the front door: what links, forms and device cookies are made with, and addresses hashed under.

One secret of the installation, and a key derived from it for each end (HKDF, RFC 5869), so that nothing made for one
end passes for another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.kernel.secret import Secret

SECRET_BYTES: Final = 32
HASH_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


class DoorKeys:
    """Hashes and seals for the front door. `secret` has 32 random bytes and is the same in every process."""

    def __init__(self, secret: Secret[bytes]) -> None:
        self._secret = secret

    def hash(self, end: str, *parts: bytes) -> bytes:
        """32 bytes that nobody can compute, or undo by trying, without the key (HMAC-SHA-256)."""
        content = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._derived(f"hash {end}"), content, "sha256")

    @staticmethod
    def is_hash(given: bytes, expected: bytes) -> bool:
        """Whether two hashes are the same, in a time that tells nothing."""
        return hmac.compare_digest(given, expected)

    def seal(self, end: str, content: bytes) -> str:
        """Something that others carry for us and can neither read nor alter (AES-256-GCM), in base64url."""
        nonce = os.urandom(_NONCE_BYTES)
        return encode(nonce + self._links.encrypt(nonce, content, end.encode()))

    def open(self, end: str, sealed: str) -> bytes | None:
        """What was sealed for this end; None for whatever we didn't seal just so."""
        raw = decode(sealed)
        if raw is None or len(raw) <= _NONCE_BYTES:
            return None
        try:
            return self._links.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], end.encode())
        except InvalidTag:
            return None

    @cached_property
    def _links(self) -> AESGCM:
        return AESGCM(self._derived("seal"))

    def _derived(self, end: str) -> bytes:
        info = f"strongroom people {end}".encode()
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(self._secret.reveal())


def encode(content: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode(text: str) -> bytes | None:
    """What `encode` made; None for anything else, other spellings of the same bytes included."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if encode(raw) == text else None
