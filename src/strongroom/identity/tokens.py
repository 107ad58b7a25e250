"""Access tokens: signed, short-lived, bound to a key's account, tenant and roles.

JSON Web Tokens (RFC 7519) under an Ed25519 signature (RFC 8032; algorithm name after RFC 9864). Any process of the
installation can check one without asking anybody; whether the key behind it still exists is asked by every operation.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId, new_uuid, parse_uuid
from strongroom.kernel.networks import Address
from strongroom.kernel.secret import Secret
from strongroom.vault.secret_files import read_or_make_secret

LIFETIME: Final = timedelta(minutes=15)
ISSUER: Final = "strongroom"
AUDIENCE: Final = "strongroom-api"
MAX_TOKEN_CHARACTERS: Final = 4_096
MAX_REMEMBERED: Final = 10_000
"""Most tokens that a process remembers having checked."""
_ALGORITHM: Final = "Ed25519"
_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token and its end, in epoch milliseconds."""

    token: Secret[str]
    expires_ms: int


class Tokens:
    """Issues tokens of one environment, and tells whose a token is."""

    def __init__(self, seed: Secret[bytes], environment: Environment, clock: Clock) -> None:
        self._key = OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(seed.reveal()))
        self._key_id = self._key.thumbprint()
        self._environment = environment.value
        self._clock = clock
        self._remembered: dict[tuple[str, Address | None], tuple[Actor, float]] = {}

    def issue(
        self,
        public_key: ApiKeyId,
        *,
        account: AccountId,
        tenant: TenantId | None,
        roles: Collection[str],
        until: datetime | None = None,
    ) -> Issued:
        """A token for a key. It ends by `until`, when the key itself does."""
        now = int(self._clock.now().timestamp())
        expires = now + int(LIFETIME.total_seconds())
        if until is not None:
            expires = min(expires, int(until.timestamp()))
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "env": self._environment,
            "sub": str(public_key),
            "account": str(account),
            "roles": sorted(roles),
            "iat": now,
            "exp": expires,
            "jti": str(new_uuid()),
        }
        if tenant is not None:
            claims["tenant"] = str(tenant)
        header = {"alg": _ALGORITHM, "kid": self._key_id}
        return Issued(
            token=Secret(jwt.encode(header, claims, self._key, algorithms=[_ALGORITHM])), expires_ms=expires * 1000
        )

    def read(self, token: str, source: Address | None = None) -> Actor:
        """The actor behind a token that came from `source`; the same object for the same two while it is remembered.

        Raises errors.Unauthenticated: `TOKEN_EXPIRED`, `TOKEN_OF_OTHER_ENVIRONMENT`, or `TOKEN_INVALID` for whatever
        else we didn't sign just so.
        """
        known = self._remembered.get((token, source))
        if known is None:
            known = self._check(token, source)
            if len(self._remembered) >= MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[token, source] = known
        actor, expires = known
        if self._clock.now().timestamp() >= expires:
            self._remembered.pop((token, source), None)
            raise Unauthenticated(Failure("TOKEN_EXPIRED", "This token has expired. Sign in again."))
        return actor

    def key_set(self) -> dict[str, Any]:
        """The public half of the signing key, as a JSON Web Key Set (RFC 7517 section 5)."""
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self._key_id, "use": "sig", "alg": _ALGORITHM}]}

    def _check(self, token: str, source: Address | None) -> tuple[Actor, float]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid()
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError, TypeError):
            raise _invalid() from None
        # From here on the signature is ours; what follows keeps apart what we sign for different ends.
        if claims.get("iss") != ISSUER or claims.get("aud") != AUDIENCE:
            raise _invalid()
        if claims.get("env") != self._environment:
            raise Unauthenticated(
                Failure(
                    "TOKEN_OF_OTHER_ENVIRONMENT",
                    "This token belongs to another environment; this installation is {environment}.",
                    {"environment": self._environment},
                )
            )
        key, account = parse_uuid(claims.get("sub")), parse_uuid(claims.get("account"))
        tenant = parse_uuid(claims["tenant"]) if "tenant" in claims else None
        expires, roles = claims.get("exp"), claims.get("roles")
        if key is None or account is None or (tenant is None) != ("tenant" not in claims):
            raise _invalid()
        if not isinstance(expires, int) or not isinstance(roles, list):
            raise _invalid()
        actor = Actor(
            kind=ActorKind.API_KEY,
            name=str(key),
            account_id=AccountId(account),
            tenant_id=None if tenant is None else TenantId(tenant),
            key_id=ApiKeyId(key),
            roles=frozenset(roles),
            source=source,
        )
        return actor, expires


def load_or_make_tokens(path: Path, environment: Environment, clock: Clock) -> Tokens:
    """Tokens under the signing key in a file (mode 0600), made when there is none.

    Raises errors.Broken when others may read the file or its size is wrong.
    """
    return Tokens(Secret(read_or_make_secret(path, _SEED_BYTES)), environment, clock)


def _invalid() -> Unauthenticated:
    return Unauthenticated(Failure("TOKEN_INVALID", "This is not a token of ours. Sign in at POST /v1/identity/hmac."))
