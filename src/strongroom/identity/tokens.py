"""Access tokens: signed, short-lived, bound to a key's account, tenant and roles.

JSON Web Tokens (RFC 7519) under an Ed25519 signature (RFC 8032; algorithm name after RFC 9864). Any process of the
installation can check one without asking anybody; whether the key behind it still exists, and whether the token was
revoked, is asked by every operation.

A token may be confined to scopes (RFC 6749 section 3.3), and bound to a key of its holder's (`cnf`, RFC 7800), which
then has to be proven with every request (`strongroom.identity.admission`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError

from strongroom.identity.public_keys import take_apart
from strongroom.identity.signing_keys import LIFETIME, SigningKeys
from strongroom.kernel.actors import Actor, ActorKind
from strongroom.kernel.clock import Clock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Failure, Unauthenticated
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId, new_uuid, parse_uuid
from strongroom.kernel.networks import Address
from strongroom.kernel.secret import Secret

ISSUER: Final = "strongroom"
AUDIENCE: Final = "strongroom-api"
MAX_TOKEN_CHARACTERS: Final = 4_096
MAX_REMEMBERED: Final = 10_000
"""Most tokens that a process remembers having checked."""
ALGORITHM: Final = "Ed25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token and its end, in epoch milliseconds."""

    token: Secret[str]
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What a good token says. Instants are epoch seconds."""

    actor: Actor
    token_id: str
    issued_s: int
    expires_s: int
    proof_key: str | None = None
    """The thumbprint of the key that its holder proves to have with each request (RFC 9449 section 6)."""
    per_minute: int | None = None
    """Most requests a minute that its key may make; None: any number."""


class Tokens:
    """Issues tokens of one environment, and tells whose a token is."""

    def __init__(self, keys: SigningKeys, environment: Environment, clock: Clock) -> None:
        self._keys = keys
        self._environment = environment.value
        self._clock = clock
        self._remembered: dict[tuple[str, Address | None], AccessToken] = {}
        self._remembered_of = keys.version

    def issue(
        self,
        public_key: ApiKeyId,
        *,
        account: AccountId,
        tenant: TenantId | None,
        roles: Collection[str],
        until: datetime | None = None,
        scopes: Collection[str] | None = None,
        proof_key: str | None = None,
        per_minute: int | None = None,
    ) -> Issued:
        """A token for a key. It ends by `until`, when the key itself does."""
        self._keys.look()
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
        if scopes is not None:
            claims["scope"] = " ".join(sorted(scopes))
        if proof_key is not None:
            claims["cnf"] = {"jkt": proof_key}
        if per_minute is not None:
            claims["perMinute"] = per_minute
        signing = self._keys.signing
        header = {"alg": ALGORITHM, "kid": signing.key_id}
        return Issued(
            token=Secret(jwt.encode(header, claims, signing.key, algorithms=[ALGORITHM])), expires_ms=expires * 1000
        )

    def read(self, token: str, source: Address | None = None) -> AccessToken:
        """What a token that came from `source` says; the same object for the same two while it is remembered.

        Raises errors.Unauthenticated: `TOKEN_EXPIRED`, `TOKEN_OF_OTHER_ENVIRONMENT`, or `TOKEN_INVALID` for whatever
        else we didn't sign just so.
        """
        self._keys.look()
        if self._remembered_of != self._keys.version:
            self._remembered.clear()
            self._remembered_of = self._keys.version
        known = self._remembered.get((token, source))
        if known is None:
            known = self._check(token, source)
            if len(self._remembered) >= MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[token, source] = known
        if self._clock.now().timestamp() >= known.expires_s:
            self._remembered.pop((token, source), None)
            raise Unauthenticated(Failure("TOKEN_EXPIRED", "This token has expired. Sign in again."))
        return known

    def key_set(self) -> dict[str, Any]:
        """The public halves of the keys whose signatures count, as a JSON Web Key Set (RFC 7517 section 5)."""
        self._keys.look()
        return {
            "keys": [
                {**signing.key.as_dict(private=False), "kid": signing.key_id, "use": "sig", "alg": ALGORITHM}
                for signing in self._keys.valid_at(self._clock.now())
            ]
        }

    def _check(self, token: str, source: Address | None) -> AccessToken:
        claims = self._claims(token)
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
        expires, roles, token_id = claims.get("exp"), claims.get("roles"), parse_uuid(claims.get("jti"))
        scope, bound_to = claims.get("scope"), claims.get("cnf", {})
        if key is None or account is None or token_id is None or (tenant is None) != ("tenant" not in claims):
            raise _invalid()
        if not isinstance(expires, int) or not isinstance(roles, list) or not isinstance(scope, str | None):
            raise _invalid()
        if not isinstance(bound_to, dict) or bound_to.keys() - {"jkt"}:
            raise _invalid()  # bound to something that isn't asked for here
        actor = Actor(
            kind=ActorKind.API_KEY,
            name=str(key),
            account_id=AccountId(account),
            tenant_id=None if tenant is None else TenantId(tenant),
            key_id=ApiKeyId(key),
            roles=frozenset(roles),
            source=source,
            token_id=token_id,
            scopes=None if scope is None else frozenset(scope.split()),
        )
        return AccessToken(
            actor=actor,
            token_id=str(token_id),
            issued_s=claims.get("iat", 0),
            expires_s=expires,
            proof_key=bound_to.get("jkt"),
            per_minute=claims.get("perMinute"),
        )

    def _claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of our keys signed."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _invalid()
        said = take_apart(token)
        if said is None:
            raise _invalid()
        for at_once in (False, True):
            self._keys.look(at_once=at_once)  # another process may have rotated it this very second
            for signing in self._keys.valid_at(self._clock.now()):
                if signing.key_id == said.key_id:
                    try:
                        return jwt.decode(token, signing.key, algorithms=[ALGORITHM]).claims
                    except (JoseError, ValueError, TypeError):
                        raise _invalid() from None
        raise _invalid()


def load_or_make_tokens(path: Path, environment: Environment, clock: Clock) -> Tokens:
    """Tokens under the signing keys in a file (mode 0600), made when there is none.

    Raises errors.Broken when others may read the file or its size is wrong.
    """
    return Tokens(SigningKeys.in_file(path), environment, clock)


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        Failure("TOKEN_INVALID", "This is not a token of ours. Sign in at POST /v1/identity/hmac or POST /oauth/token.")
    )
