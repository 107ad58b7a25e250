"""Signing in with an API key's private half (wire contract, section 2).

The client signs `{publicKey}:{nonce}:{epoch}:{bodyHash}` with HMAC-SHA-256 (RFC 2104) under its private key. A
signature is good for five minutes around its epoch, and counts once (`strongroom.identity.clients`).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import re
from datetime import datetime
from typing import Final

from strongroom.database import Databases
from strongroom.identity.api_keys import SealedKey
from strongroom.identity.clients import CLOCK_WINDOW, Client, authenticate, refused, taking_its_time
from strongroom.identity.tokens import Issued, Tokens
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.ids import ApiKeyId, parse_uuid
from strongroom.kernel.networks import Address

MAX_NONCE_CHARACTERS: Final = 128
_EPOCH: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
_NONCE: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_NONCE_CHARACTERS}}}", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HmacSignature:
    """What the Authorization header says; a `clients.Credential`. `text` is what was signed."""

    public_key: ApiKeyId
    nonce: str
    epoch: float
    text: str
    signature: bytes

    def check_signature(self, key: SealedKey) -> None:
        """Raises errors.Unauthenticated (`SIGNATURE_REFUSED`)."""
        if key.private_key is None or not hmac.compare_digest(
            hmac.digest(key.private_key, self.text.encode(), "sha256"), self.signature
        ):
            raise refused()

    def check_time(self, now: datetime) -> None:
        """Raises errors.Unauthenticated (`CLOCK_OUT_OF_RANGE`)."""
        now_s = now.timestamp()
        if abs(now_s - self.epoch) > CLOCK_WINDOW.total_seconds():
            raise Unauthenticated(
                Failure(
                    "CLOCK_OUT_OF_RANGE",
                    "The signature's epoch is more than {seconds} seconds away from now ({now}). Set your clock.",
                    {"seconds": int(CLOCK_WINDOW.total_seconds()), "now": int(now_s)},
                )
            )


async def sign_in(
    databases: Databases,
    tokens: Tokens,
    *,
    authorization: str,
    body: bytes,
    correlation_id: str,
    source: Address | None = None,
) -> Issued:
    """A token for a signed request that came from the address `source`.

    Raises errors.Unauthenticated (`SIGNATURE_IS_REQUIRED`, `SIGNATURE_MALFORMED`, `SIGNATURE_REFUSED`,
    `CLOCK_OUT_OF_RANGE`, `NONCE_REPLAYED`, `KEY_OF_OTHER_ENVIRONMENT`, `API_KEY_EXPIRED`) and errors.Forbidden
    (`TENANT_NOT_APPROVED`, `ADDRESS_NOT_ALLOWED`).
    """

    def issue(client: Client) -> Issued:
        return tokens.issue(
            client.public_key,
            account=client.account_id,
            tenant=client.tenant_id,
            roles=client.roles,
            until=client.ends_at,
            scopes=client.scopes,
            per_minute=client.per_minute,
        )

    async with taking_its_time():
        signature = read_signature(authorization, body)
        return await authenticate(
            databases, signature, issue, action="sign-in", correlation_id=correlation_id, source=source
        )


def read_signature(authorization: str, body: bytes) -> HmacSignature:
    """The signature in an Authorization header.

    Raises errors.Unauthenticated (`SIGNATURE_IS_REQUIRED`, `SIGNATURE_MALFORMED`).
    """
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() != "hmac" or not rest:
        raise Unauthenticated(
            Failure(
                "SIGNATURE_IS_REQUIRED",
                "Send the header Authorization: Hmac publicKey:nonce:epoch:signature.",
            )
        )
    parts = rest.strip().split(":")
    if len(parts) != 4:
        raise _malformed("four parts between colons")
    public_key, nonce, epoch, signature = parts
    key = parse_uuid(public_key)
    if key is None:
        raise _malformed("a UUID as the public key")
    if not _NONCE.fullmatch(nonce):
        raise _malformed(f"a nonce of 1 to {MAX_NONCE_CHARACTERS} visible characters")
    if not _EPOCH.fullmatch(epoch):
        raise _malformed("the epoch in seconds as a decimal number")
    try:
        decoded = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("the signature in base64") from None
    body_hash = base64.b64encode(hashlib.sha256(body).digest()).decode() if body else ""
    return HmacSignature(
        public_key=ApiKeyId(key),
        nonce=nonce,
        epoch=float(epoch),
        text=f"{public_key}:{nonce}:{epoch}:{body_hash}",
        signature=decoded,
    )


def _malformed(wanted: str) -> Unauthenticated:
    return Unauthenticated(
        Failure("SIGNATURE_MALFORMED", "The Authorization header should hold {wanted}.", {"wanted": wanted})
    )
