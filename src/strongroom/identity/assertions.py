"""Client assertions: a key signs for itself with a private key of its holder's (`private_key_jwt`).

RFC 7523 sections 2.2 and 3, as the FAPI 2.0 Security Profile narrows them (section 5.3.2.1): the only audience is our
issuer, as a text; `iss` and `sub` are the key; the signature is by a registered key's own algorithm; `jti` counts once.
An assertion is good for a minute at most, and clocks may be ten seconds apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from strongroom.identity.api_keys import SealedKey
from strongroom.identity.clients import refused
from strongroom.identity.public_keys import Signed, take_apart
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.ids import ApiKeyId, parse_uuid

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MAX_LIFETIME: Final = timedelta(seconds=60)
"""How far away an assertion's end may be."""
CLOCK_SKEW: Final = timedelta(seconds=10)
"""How far our clock and the client's may be apart."""
MAX_ID_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A signed assertion; a `clients.Credential`. Instants are epoch seconds."""

    public_key: ApiKeyId
    nonce: str
    expires_s: float
    issued_s: float | None
    not_before_s: float | None
    signed: Signed

    def check_signature(self, key: SealedKey) -> None:
        """Raises errors.Unauthenticated (`SIGNATURE_REFUSED`)."""
        said = self.signed.key_id
        if not any(public.has_signed(self.signed) for public in key.public_keys if not said or public.key_id == said):
            raise refused()

    def check_time(self, now: datetime) -> None:
        """Raises errors.Unauthenticated (`ASSERTION_EXPIRED`, `ASSERTION_OUT_OF_RANGE`)."""
        now_s, skew_s, most_s = now.timestamp(), CLOCK_SKEW.total_seconds(), MAX_LIFETIME.total_seconds()
        if self.expires_s <= now_s:
            raise Unauthenticated(
                Failure(
                    "ASSERTION_EXPIRED",
                    "The assertion's exp is over; it is {now} now. Sign a new one each time, and set your clock.",
                    {"now": int(now_s)},
                )
            )
        early = max(self.issued_s or 0, self.not_before_s or 0) > now_s + skew_s
        old = self.issued_s is not None and self.issued_s < now_s - most_s - skew_s
        if early or old or self.expires_s > now_s + most_s + skew_s:
            raise Unauthenticated(
                Failure(
                    "ASSERTION_OUT_OF_RANGE",
                    "An assertion is signed now and ends within {seconds} seconds; it is {now} now. Set its exp (and "
                    "iat and nbf) accordingly, and your clock.",
                    {"seconds": int(most_s), "now": int(now_s)},
                )
            )


def read_assertion(text: str, issuer: str) -> Assertion:
    """An assertion that is meant for us, the `issuer`; its signature is yet to be checked.

    Raises errors.Unauthenticated (`ASSERTION_MALFORMED`, `ASSERTION_FOR_OTHERS`).
    """
    signed = take_apart(text)
    if signed is None:
        raise _malformed("it is a signed JWT in compact form")
    claims = signed.claims
    key = parse_uuid(claims.get("sub"))
    if key is None or claims.get("iss") != claims["sub"]:
        raise _malformed("iss and sub are the API key's publicKey")
    if claims.get("aud") != issuer:
        raise Unauthenticated(
            Failure("ASSERTION_FOR_OTHERS", "The assertion's aud has to be {issuer}, as a text.", {"issuer": issuer})
        )
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_ID_CHARACTERS:
        raise _malformed(f"jti is a text of 1 to {MAX_ID_CHARACTERS} characters")
    instants = [claims.get(name) for name in ("exp", "iat", "nbf")]
    if not all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in instants):
        raise _malformed("exp, iat and nbf are epoch seconds")
    expires, issued, not_before = instants
    if expires is None:
        raise _malformed("it has an exp")
    return Assertion(
        public_key=ApiKeyId(key),
        nonce=f"assertion {token_id}",
        expires_s=expires,
        issued_s=issued,
        not_before_s=not_before,
        signed=signed,
    )


def _malformed(wanted: str) -> Unauthenticated:
    return Unauthenticated(
        Failure("ASSERTION_MALFORMED", "The assertion isn't as it has to be: {wanted}.", {"wanted": wanted})
    )
