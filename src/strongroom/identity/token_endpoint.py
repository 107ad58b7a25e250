"""OAuth 2.0 for API keys: the client credentials grant (RFC 6749 section 4.4), introspection and revocation.

A client is an API key. It proves itself with an assertion (`private_key_jwt`), or with its HMAC signature over the
whole form, for keys with a private half of ours. The token is the same as from the HMAC sign-in; asked for with a DPoP
proof it is bound to the proof's key (RFC 9449 section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from strongroom.access import may_allow, permissions_of
from strongroom.audit import record
from strongroom.database import Databases
from strongroom.identity.assertions import ASSERTION_TYPE, read_assertion
from strongroom.identity.clients import Client, Credential, authenticate, taking_its_time
from strongroom.identity.dpop import Proof, Proofs, Target
from strongroom.identity.hmac_signin import read_signature
from strongroom.identity.tokens import AUDIENCE, ISSUER, AccessToken, Tokens
from strongroom.kernel.actors import Actor, ActorKind, system
from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Failure, Forbidden, Invalid, Unauthenticated
from strongroom.kernel.ids import ApiKeyId, parse_uuid
from strongroom.kernel.networks import Address
from strongroom.kernel.secret import Secret

GRANT: Final = "client_credentials"
MAX_SCOPE_CHARACTERS: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A request to one of the endpoints: its parameters, and what came with them."""

    parameters: Mapping[str, str]
    authorization: str
    body: bytes
    proof: str
    """The DPoP header; empty when there is none."""
    target: Target
    correlation_id: str
    source: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A token; `scope` are the names of the permissions that it is good for."""

    token: Secret[str]
    kind: str
    expires_in_s: int
    scope: str


@dataclass(slots=True, kw_only=True)
class TokenEndpoint:
    """Issues, explains and revokes tokens. `issuer` is the address by which clients know us."""

    databases: Databases
    tokens: Tokens
    proofs: Proofs
    clock: Clock
    issuer: str

    async def grant(self, form: Form) -> Granted:
        """A token for the client.

        Raises errors.Invalid (`GRANT_TYPE_IS_REQUIRED`, `GRANT_TYPE_NOT_SUPPORTED`, `SCOPE_NOT_ALLOWED`), what
        `authenticate` raises, and errors.Unauthenticated (`DPOP_PROOF_REFUSED`, `DPOP_NONCE_REQUIRED`).
        """
        async with taking_its_time():
            credential = self._credential(form)
            asked = form.parameters.get("scope")
            proof = self.proofs.check(form.proof, form.target) if form.proof else None

            def decide(client: Client) -> Granted:
                _check_grant_type(form.parameters.get("grant_type"))
                return self._issue(client, asked, proof)

            return await authenticate(
                self.databases,
                credential,
                decide,
                action="sign-in",
                correlation_id=form.correlation_id,
                source=form.source,
                proof_nonces=() if proof is None else (proof.nonce,),
            )

    async def introspect(self, form: Form) -> Mapping[str, Any]:
        """What a token says and whether it is good (RFC 7662 section 2.2).

        A client is told about tokens of its own account (a tenant's key: of its own tenant); others are just not
        active. One that is bound says so in `cnf`; whether its proof is there can't be seen here.

        Raises errors.Invalid (`TOKEN_PARAMETER_IS_REQUIRED`) and what `authenticate` raises.
        """
        client, token = await self._asked_about(form, "token.introspect")
        try:
            access = self.tokens.read(token)
            actor = access.actor
            if actor.account_id != client.account_id or client.tenant_id not in {None, actor.tenant_id}:
                return {"active": False}
            # An operation of its holder's checks all the rest: key and tenant are alive, it isn't revoked.
            async with self.databases.operation(actor, account=actor.account_id, tenant=actor.tenant_id):
                return _explained(access)
        except (Unauthenticated, Forbidden):
            return {"active": False}

    async def revoke(self, form: Form) -> None:
        """Make a token of the client's own good for nothing, at once and in every process (RFC 7009 section 2).

        What isn't a good token is none already.

        Raises errors.Invalid (`TOKEN_PARAMETER_IS_REQUIRED`, `TOKEN_OF_OTHER_CLIENT`) and what `authenticate` raises.
        """
        client, token = await self._asked_about(form, "token.revoke")
        try:
            access = self.tokens.read(token)
        except Unauthenticated:
            return
        if access.actor.key_id != client.public_key:
            raise Invalid(
                Failure("TOKEN_OF_OTHER_CLIENT", "This token belongs to another key. Only its own key can revoke it.")
            )
        await self._revoke(client, access, form.correlation_id)

    async def _revoke(self, client: Client, access: AccessToken, correlation_id: str) -> None:
        end = datetime.fromtimestamp(access.expires_s, UTC)
        async with self.databases.operation(
            system("tokens"),
            account=client.account_id,
            tenant=client.tenant_id,
            region=client.region,
            correlation_id=correlation_id,
        ) as op:
            op.actor = Actor(
                kind=ActorKind.API_KEY,
                name=str(client.public_key),
                account_id=client.account_id,
                tenant_id=client.tenant_id,
                key_id=client.public_key,
            )
            if client.tenant_id is None:
                async with self.databases.directory() as directory:
                    await directory.execute(
                        "insert into revoked_tokens (public_key, token_id, expires_at) values (%s, %s, %s) "
                        "on conflict do nothing",
                        (client.public_key, access.actor.token_id, end),
                    )
            else:
                await op.run(
                    "insert into revoked_tokens (scope_id, token_id, expires_at) values (%s, %s, %s) "
                    "on conflict do nothing",
                    op.scope,
                    access.actor.token_id,
                    end,
                )
            await record(op, "token.revoked", "token", access.token_id)

    async def _asked_about(self, form: Form, action: str) -> tuple[Client, str]:
        """The client, and the token that it asks about."""
        async with taking_its_time():
            credential = self._credential(form)

            def decide(client: Client) -> tuple[Client, str]:
                token = form.parameters.get("token")
                if token is None:
                    raise Invalid(
                        Failure(
                            "TOKEN_PARAMETER_IS_REQUIRED", "Send the token that this is about as the parameter token."
                        )
                    )
                return client, token

            return await authenticate(
                self.databases,
                credential,
                decide,
                action=action,
                correlation_id=form.correlation_id,
                source=form.source,
            )

    def _credential(self, form: Form) -> Credential:
        """What the client proves itself with: one way and no other (RFC 6749 section 2.3)."""
        given, kind = form.parameters.get("client_assertion"), form.parameters.get("client_assertion_type")
        if form.authorization and given is not None:
            raise Invalid(
                Failure("CLIENT_PROOF_SENT_TWICE", "Send a client_assertion or an Authorization header, not both.")
            )
        credential: Credential
        if given is None and form.authorization.lower().startswith("hmac "):
            credential = read_signature(form.authorization, form.body)
        elif given is None:
            raise Unauthenticated(
                Failure(
                    "CLIENT_PROOF_IS_REQUIRED",
                    "Send a client_assertion with the client_assertion_type {type}, or the header Authorization: Hmac "
                    "publicKey:nonce:epoch:signature.",
                    {"type": ASSERTION_TYPE},
                )
            )
        elif kind != ASSERTION_TYPE:
            raise Invalid(
                Failure(
                    "CLIENT_ASSERTION_TYPE_NOT_SUPPORTED",
                    "The client_assertion_type is {type}.",
                    {"type": ASSERTION_TYPE},
                )
            )
        else:
            credential = read_assertion(given, self.issuer)
        named = form.parameters.get("client_id")
        if named is not None and parse_uuid(named) != credential.public_key:
            raise Invalid(
                Failure("CLIENT_ID_DISAGREES", "The client_id isn't the key whose credential was sent. Leave it out.")
            )
        return credential

    def _issue(self, client: Client, asked: str | None, proof: Proof | None) -> Granted:
        allowed = {permission.value for permission in may_allow(client.roles)}
        usual = {permission.value for permission in permissions_of(frozenset(client.roles))}
        if client.scopes is not None:
            allowed &= set(client.scopes)
            usual = allowed
        wanted = usual if asked is None else set(asked.split(" "))
        if not wanted <= allowed:
            raise Invalid(
                Failure(
                    "SCOPE_NOT_ALLOWED",
                    "This key's tokens can have the scopes {allowed}, parted by single spaces.",
                    {"allowed": " ".join(sorted(allowed))},
                )
            )
        issued = self.tokens.issue(
            ApiKeyId(client.public_key),
            account=client.account_id,
            tenant=client.tenant_id,
            roles=client.roles,
            until=client.ends_at,
            scopes=client.scopes if asked is None else wanted,
            proof_key=None if proof is None else proof.thumbprint,
            per_minute=client.per_minute,
        )
        return Granted(
            token=issued.token,
            kind="Bearer" if proof is None else "DPoP",
            expires_in_s=issued.expires_ms // 1000 - int(self.clock.now().timestamp()),
            scope=" ".join(sorted(wanted)),
        )


def _check_grant_type(grant_type: str | None) -> None:
    if grant_type is None:
        raise Invalid(Failure("GRANT_TYPE_IS_REQUIRED", "Send the parameter grant_type={grant}.", {"grant": GRANT}))
    if grant_type != GRANT:
        raise Invalid(Failure("GRANT_TYPE_NOT_SUPPORTED", "The grant type is {grant}.", {"grant": GRANT}))


def _explained(access: AccessToken) -> Mapping[str, Any]:
    actor = access.actor
    allowed = {permission.value for permission in permissions_of(actor.roles)}
    more: dict[str, Any] = {} if access.proof_key is None else {"cnf": {"jkt": access.proof_key}}
    if actor.tenant_id is not None:
        more["tenant"] = str(actor.tenant_id)
    return {
        "active": True,
        "scope": " ".join(sorted(allowed if actor.scopes is None else allowed & actor.scopes)),
        "client_id": str(actor.key_id),
        "sub": str(actor.key_id),
        "token_type": "Bearer" if access.proof_key is None else "DPoP",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": access.token_id,
        "iat": access.issued_s,
        "exp": access.expires_s,
        "account": str(actor.account_id),
        **more,
    }
