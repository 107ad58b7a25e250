"""Public keys that API keys sign with: JSON Web Keys (RFC 7517) of three kinds, and what they have signed (RFC 7515).

ES256 (P-256), PS256 (RSA of 2,048 to 4,096 bits) and EdDSA (Ed25519) are what the FAPI 2.0 Security Profile allows
(section 5.4.1). Which algorithm is used is said by the key that we were given, never by what is to be checked.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from strongroom.kernel.errors import Failure, Invalid

MAX_PUBLIC_KEYS: Final = 5
"""Most public keys of an API key: enough for old and new ones to overlap."""
MAX_SIGNED_CHARACTERS: Final = 8_192
"""Longest text that a signature is looked for in."""
MIN_RSA_BITS: Final = 2_048
MAX_RSA_BITS: Final = 4_096
ALGORITHMS: Final = ("ES256", "PS256", "EdDSA")
_KEY_ID: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS: Final[Mapping[tuple[str, str], tuple[str, type[ECKey] | type[OKPKey] | type[RSAKey], tuple[str, ...]]]] = {
    ("EC", "P-256"): ("ES256", ECKey, ("crv", "x", "y")),
    ("OKP", "Ed25519"): ("EdDSA", OKPKey, ("crv", "x")),
    ("RSA", ""): ("PS256", RSAKey, ("n", "e")),
}
_NAMES: Final = {"ES256": ("ES256",), "PS256": ("PS256",), "EdDSA": ("EdDSA", "Ed25519")}
"""What a signature may call the algorithm of a key (RFC 9864 gives EdDSA with Ed25519 a name of its own)."""


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that was looked at: `members` are those that define it (RFC 7638 section 3.2) but for its kind."""

    kind: str
    algorithm: str
    key_id: str
    members: dict[str, str]

    def as_jwk(self) -> dict[str, str]:
        """The key as a JSON Web Key."""
        return {"kty": self.kind, "kid": self.key_id, "alg": self.algorithm, "use": "sig", **self.members}

    @property
    def thumbprint(self) -> str:
        """The key's SHA-256 thumbprint (RFC 7638), base64url."""
        return _imported(self.kind, tuple(self.members.items())).thumbprint()

    def has_signed(self, signed: Signed) -> bool:
        """Whether the signature is this key's, by this key's algorithm."""
        if signed.algorithm not in _NAMES[self.algorithm]:
            return False
        key = _imported(self.kind, tuple(self.members.items()))
        try:
            if isinstance(key, OKPKey):
                return _has_signed_by_ed25519(key, signed.text)
            registry = jws.JWSRegistry(algorithms=[self.algorithm], strict_check_header=False)
            registry.max_header_length = MAX_SIGNED_CHARACTERS  # an RSA key in it takes more than the usual 512
            jws.deserialize_compact(signed.text, key, [self.algorithm], registry)
        except (JoseError, InvalidSignature, ValueError, TypeError):
            return False
        return True


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON Web Token in compact form, taken apart; nothing in it is believed before its signature is."""

    text: str
    algorithm: str
    key_id: str
    """The key that it says it is signed with; empty when it says nothing."""
    header: dict[str, Any]
    claims: dict[str, Any]


def take_apart(text: str) -> Signed | None:
    """A token's parts, or None when it isn't one.

    A header with `crit` (RFC 7515 section 4.1.11) asks for something that we don't do, so it is none either.
    """
    parts = text.split(".")
    if len(text) > MAX_SIGNED_CHARACTERS or len(parts) != 3 or not all(parts):
        return None
    try:
        header, claims = (_decode(part) for part in parts[:2])
    except (ValueError, RecursionError):
        return None
    if header is None or claims is None or "crit" in header:
        return None
    algorithm, key_id = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(key_id, str):
        return None
    return Signed(text=text, algorithm=algorithm, key_id=key_id, header=header, claims=claims)


def read_public_keys(document: object) -> tuple[PublicKey, ...]:
    """The public keys of a JSON Web Key Set (RFC 7517 section 5).

    Raises errors.Invalid (`JWKS_IS_INVALID`, `JWKS_HOLDS_PRIVATE_KEY`).
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MAX_PUBLIC_KEYS:
        raise _invalid(f'it looks like {{"keys": […]}}, with one to {MAX_PUBLIC_KEYS} keys')
    read = tuple(read_public_key(key, needs_id=True) for key in keys)
    if len({key.key_id for key in read}) < len(read):
        raise _invalid("each key has a kid of its own")
    if len({key.thumbprint for key in read}) < len(read):
        raise _invalid("each key is there once")
    return read


def read_public_key(document: object, *, needs_id: bool = False) -> PublicKey:
    """One JSON Web Key. Raises errors.Invalid (`JWKS_IS_INVALID`, `JWKS_HOLDS_PRIVATE_KEY`)."""
    if not isinstance(document, dict):
        raise _invalid("a key is an object")
    if not _PRIVATE.isdisjoint(document):
        raise Invalid(
            Failure(
                "JWKS_HOLDS_PRIVATE_KEY",
                "This holds a private or a shared key, which nobody but you may have. Make a new pair, and send the "
                "public half.",
            )
        )
    kind, curve = document.get("kty"), document.get("crv", "")
    found = _KINDS.get((kind, curve)) if isinstance(kind, str) and isinstance(curve, str) else None
    if found is None:
        raise _invalid("a key is of P-256, Ed25519 or RSA")
    algorithm, _, names = found
    if document.get("alg", algorithm) not in _NAMES[algorithm]:
        raise _invalid(f"alg is {algorithm} for this kind of key, or left out")
    if document.get("use", "sig") != "sig":
        raise _invalid("use is sig, or left out")
    key_id = document.get("kid", "")
    if not isinstance(key_id, str) or not (_KEY_ID.fullmatch(key_id) if needs_id or key_id else True):
        raise _invalid("kid is a text of 1 to 128 visible characters")
    members = {name: document.get(name) for name in names}
    if not all(isinstance(value, str) and value for value in members.values()):
        raise _invalid(f"a key of this kind has {', '.join(names)}")
    key = PublicKey(
        kind=str(kind), algorithm=algorithm, key_id=key_id, members={name: str(members[name]) for name in names}
    )
    try:
        imported = _imported(key.kind, tuple(key.members.items()))
    except (JoseError, ValueError, TypeError):
        raise _invalid("its numbers make a key") from None
    if isinstance(imported, RSAKey):
        _check_rsa(imported)
    return key


def _has_signed_by_ed25519(key: OKPKey, text: str) -> bool:
    """Whether the key signed a text (RFC 8037 section 3.1), whichever of its two names the algorithm goes by."""
    public = key.public_key
    if not isinstance(public, Ed25519PublicKey):
        return False
    content, _, signature = text.rpartition(".")
    decoded = base64.b64decode(signature + "=" * (-len(signature) % 4), altchars=b"-_", validate=True)
    public.verify(decoded, content.encode())  # raises InvalidSignature
    return True


def _check_rsa(key: RSAKey) -> None:
    numbers = key.public_key.public_numbers()
    if not MIN_RSA_BITS <= numbers.n.bit_length() <= MAX_RSA_BITS or numbers.e != 65_537:
        raise _invalid(f"RSA keys have {MIN_RSA_BITS} to {MAX_RSA_BITS} bits and the exponent 65537 (AQAB)")


@lru_cache(maxsize=4096)
def _imported(kind: str, members: tuple[tuple[str, str], ...]) -> ECKey | OKPKey | RSAKey:
    by_name = dict(members)
    _, key_type, _ = _KINDS[kind, by_name.get("crv", "")]
    return key_type.import_key({"kty": kind, **by_name})


def _decode(part: str) -> dict[str, Any] | None:
    try:
        content = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        decoded = msgspec.json.decode(content)
    except (binascii.Error, msgspec.DecodeError):
        return None
    return decoded if isinstance(decoded, dict) else None


def _invalid(reason: str) -> Invalid:
    return Invalid(Failure("JWKS_IS_INVALID", "The key set can't be read: {reason}.", {"reason": reason}))


def thumbprints(keys: Sequence[PublicKey]) -> str:
    """The keys for the record, by their thumbprints."""
    return " ".join(key.thumbprint for key in keys)
