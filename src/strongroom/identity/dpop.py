"""DPoP: proof that whoever sends a token has the key that it is bound to (RFC 9449).

A proof is a JSON Web Token that the holder signs for one request. It names the request's method and address, carries a
nonce of ours that is at most five minutes old, and counts once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import unquote, urlsplit

from strongroom.identity.public_keys import read_public_key, take_apart
from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Failure, Invalid, Unauthenticated
from strongroom.kernel.secret import Secret

PROOF_WINDOW: Final = timedelta(minutes=5)
"""How far from now a proof may say it was made, either way; and how long a nonce of ours is good."""
MAX_ID_CHARACTERS: Final = 128
_PORTS: Final = {"https": 443, "http": 80}
_STAMP_BYTES: Final = 8
_MARK_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A good proof: whose key made it (RFC 7638 thumbprint), and what has to be spent for it to count once."""

    thumbprint: str
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The request that a proof is for: its method, and its path as it came (decoded)."""

    method: str
    path: str


class Proofs:
    """Checks proofs. `authorities` are the names, with ports, under which the API is reached."""

    def __init__(self, secret: Secret[bytes], authorities: Collection[str], clock: Clock) -> None:
        self._secret = secret
        self._authorities = frozenset(authorities)
        self._clock = clock

    def fresh_nonce(self) -> str:
        """A nonce for proofs, good for five minutes in every process of the installation."""
        stamp = int(self._clock.now().timestamp()).to_bytes(_STAMP_BYTES, "big")
        return base64.urlsafe_b64encode(stamp + self._mark(stamp)).rstrip(b"=").decode()

    def check(self, text: str, target: Target, *, token: str | None = None, key: str | None = None) -> Proof:
        """A proof for a request that comes with `token` (RFC 9449 section 4.3), by the key with the thumbprint `key`.

        Raises errors.Unauthenticated (`DPOP_PROOF_REFUSED`, `DPOP_NONCE_REQUIRED`).
        """
        signed = take_apart(text)
        if signed is None or signed.header.get("typ") != "dpop+jwt":
            raise _refused("it is a signed JWT of the type dpop+jwt")
        try:
            public = read_public_key(signed.header.get("jwk"))
        except Invalid:
            raise _refused("its header has the public key, of P-256, Ed25519 or RSA, as jwk") from None
        if not public.has_signed(signed):
            raise _refused("it is signed with the key in its header")
        claims = signed.claims
        if claims.get("htm") != target.method:
            raise _refused("htm is the request's method")
        if not self._is_at(claims.get("htu"), target.path):
            raise _refused("htu is the request's address, without query")
        issued, now_s, window_s = claims.get("iat"), self._clock.now().timestamp(), PROOF_WINDOW.total_seconds()
        if not isinstance(issued, int | float) or not now_s - window_s <= issued <= now_s + window_s:
            raise _refused("iat is now, in epoch seconds")
        token_id = claims.get("jti")
        if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_ID_CHARACTERS:
            raise _refused(f"jti is a text of 1 to {MAX_ID_CHARACTERS} characters")
        if token is not None and claims.get("ath") != _digest(token):
            raise _refused("ath is the access token's SHA-256 hash in base64url")
        thumbprint = public.thumbprint
        if key is not None and thumbprint != key:
            raise _refused("it is made with the key that the token is bound to")
        if not self._is_ours(claims.get("nonce")):
            raise Unauthenticated(
                Failure("DPOP_NONCE_REQUIRED", "Make another proof, with the nonce that the DPoP-Nonce header brings.")
            )
        return Proof(thumbprint=thumbprint, nonce=f"dpop {thumbprint} {token_id}")

    def _is_at(self, address: object, path: str) -> bool:
        """Whether an address is a request's, both as RFC 3986 normalises them (section 6.2.2 and 6.2.3)."""
        if not isinstance(address, str):
            return False
        try:
            parts = urlsplit(address)
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            return False
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return (
            parts.scheme == "https"
            and not (parts.query or parts.fragment or parts.username or parts.password)
            and f"{host}:{port}" in self._authorities
            and (unquote(parts.path) or "/") == path
        )

    def _is_ours(self, nonce: object) -> bool:
        if not isinstance(nonce, str):
            return False
        try:
            content = base64.b64decode(nonce + "=" * (-len(nonce) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        stamp, mark = content[:_STAMP_BYTES], content[_STAMP_BYTES:]
        age_s = self._clock.now().timestamp() - int.from_bytes(stamp, "big")
        return hmac.compare_digest(mark, self._mark(stamp)) and abs(age_s) <= PROOF_WINDOW.total_seconds()

    def _mark(self, stamp: bytes) -> bytes:
        return hmac.digest(self._secret.reveal(), b"dpop nonce " + stamp, "sha256")[:_MARK_BYTES]


def _digest(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


def _refused(wanted: str) -> Unauthenticated:
    return Unauthenticated(Failure("DPOP_PROOF_REFUSED", "The DPoP proof is refused: {wanted}.", {"wanted": wanted}))
